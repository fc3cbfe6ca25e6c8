"""A worker: loads one module, then answers one message at a time until its pipes close.

One thread. It owns the request pipe's read end, the reply pipe's write end, the socket until the module is loaded,
and one guest. The call's slots are worked on where they were received and the reply is written from there; what
arrives during a host call goes to a second buffer, because the engine will still write its results into the first.
"""

from __future__ import annotations

import _thread
import gc
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import CallError, Cause, InstantiationError, WasmError
from ..externs import ImportType
from ..imports import Offer
from ..platform import os_
from ..protocol import messages as m
from ..protocol.control import NOT_LOCKED_DOWN, Config, Role
from ..protocol.frames import HEADER, HEADER_BYTES
from ..runtime.engine import Engine, Module
from ..runtime.guest import Export, Guest, RawFunction
from ..runtime.hostcalls import HostCalls, RemoteOffer
from ..slots import SLOT_BYTES
from . import warmup
from .faults import RemoteFailed, error_message
from .lockdown import Lockdown, enter
from .pipes import CLOSE_NS, FIRST_SPIN_NS, SPIN_NS, Backstop, Inbox, Leave, Outbox

_CALL_SLOTS: Final = HEADER_BYTES + m.CALL_LAYOUT.size
_BATCH_SLOTS: Final = HEADER_BYTES + m.CALL_MANY_LAYOUT.size
_RESULT_HEAD: Final = HEADER_BYTES + m.RESULT_LAYOUT.size
_NAME: Final = "pdsandbox-work"
# It reads a byte and makes one call; the default would take 8 MiB of what RLIMIT_DATA allows.
_LISTENER_STACK: Final = 256 << 10
_READY: Final = m.Ready().frame()
_RESULTS_HEAD: Final = HEADER_BYTES + m.RESULTS_LAYOUT.size


class Worker:
    """The loop, and the guest that it drives. Made in the fork server, with its store and buffers; serves in one fork.

    Whatever is made before the fork is memory that no worker has to touch for it.
    """

    def __init__(self, engine: Engine, warm: Module, limits: Config) -> None:
        self._engine = engine
        self._warm = warm
        self._inbox = Inbox()
        self._nested: Inbox | None = None
        self._requests = -1
        self._outbox = Outbox()
        self._socket = -1
        self._artifact = -1
        self._backstop = Backstop()
        self._guest = Guest(
            engine,
            memory_bytes=limits.memory_bytes,
            memories=limits.memories,
            table_elements=limits.table_elements,
        )
        self._hosts = HostCalls(
            self._guest,
            host_calls=limits.host_calls,
            host_call_bytes=limits.host_call_bytes,
            message_bytes=limits.message_bytes,
            remote=self,
        )
        self._exports: list[Export] = []
        self._spin_in_call = False
        self._lockdown: Lockdown | None = None
        self._spare_socket: socket.socket | None = None
        self._listening: Any = None  # a lock that the thread for interrupts waits for

    def run(
        self,
        requests: int,
        replies: int,
        sock: int,
        artifact: int,
        lockdown: Lockdown | None,
        *,
        functions: bool = False,
    ) -> int:
        """In the fork: serve until the supervisor leaves; the process's exit code.

        artifact   the module's memfd, or -1 for a spare, which gets it over the socket
        lockdown   None in a rehearsal
        functions  LOAD brings functions of the user's, which are taken in before anything is given up: what they
                   import is still there
        """
        self._requests, self._socket, self._artifact = requests, sock, artifact
        self._lockdown = lockdown
        self._inbox.open(requests)
        self._outbox.open(replies)
        if artifact < 0:  # made now, because it asks the kernel what it is
            self._spare_socket = socket.socket(fileno=sock)
        try:
            if functions:
                self._serve(functions=True)
            elif not self._enter():
                return NOT_LOCKED_DOWN
            else:
                self._serve(functions=False)
        except Leave:
            pass
        return 0

    def _enter(self) -> bool:
        """Give up all that loading does not need. False when that failed: then nothing hostile may come near."""
        return self._lockdown is None or enter(self._lockdown, Role.WORKER, self._threads())

    def _threads(self) -> Callable[[], None] | None:
        """What starts the threads that this worker will need."""
        return self._start_listening if self._engine.interruptible else None

    def _give_up(self, act: Callable[[Lockdown], None]) -> None:
        """A step of the lock-down while loading; InstantiationError, HOST, when it fails: then no guest may start."""
        if self._lockdown is not None:
            try:
                act(self._lockdown)
            except OSError as exc:
                raise InstantiationError(f"a worker could not be locked down: {exc}", cause=Cause.HOST) from exc

    def close(self) -> None:
        """After a rehearsal, in the fork server: leave nothing behind, not even cycles. A worker just exits."""
        self._guest.close()
        self.__dict__.clear()

    # --- the loop ---

    def _serve(self, *, functions: bool) -> None:
        """READY, one LOAD, then requests."""
        self._outbox.write(_READY)
        if self._artifact < 0:
            # A spare: nobody waits for it, so it may as well touch its pages now.
            os_.set_name(_NAME)
            warmup.run_once(self._engine, self._warm)
        kind, length = self._inbox.read(0)
        if kind != m.LOAD:
            raise SystemExit(f"unexpected message kind {kind} before LOAD")
        load = m.Load.decode(self._inbox.view[HEADER_BYTES : HEADER_BYTES + length])
        if not self._load(load, functions=functions):
            return
        inbox, read, idle = self._inbox, self._inbox.read, self._backstop.disarm
        in_vain = skip = 0  # after a spin in vain, the next 1, 2, 4, … 64 are left out
        replied = time.perf_counter_ns()
        spin_until = replied + FIRST_SPIN_NS
        while True:
            kind, length = read(spin_until, idle)
            now = time.perf_counter_ns()
            if kind == m.CALL:
                spin = self._call(length)
            else:
                spin = self._other(kind, length)
            if spin_until:
                in_vain = min(64, 2 * in_vain or 1) if inbox.blocked else 0
                skip = in_vain
            elif skip:
                skip -= 1
            close = now - replied < CLOSE_NS
            replied = time.perf_counter_ns()
            spin_until = replied + SPIN_NS if spin and close and not skip else 0

    def _other(self, kind: int, length: int) -> bool:
        payload = self._inbox.view[HEADER_BYTES : HEADER_BYTES + length]
        if kind == m.CALL_MANY:
            return self._call_many(length)
        if kind in (m.MEM_READ, m.MEM_WRITE):
            self._outbox.write(self._memory(kind, payload))
            return True
        if kind == m.RESOLVE:
            self._resolve(m.Resolve.decode(payload))
            return True  # the call is right behind it
        raise SystemExit(f"unexpected message kind {kind}")

    # --- loading ---

    def _load(self, load: m.Load, *, functions: bool) -> bool:
        """Instantiate; False when that failed and the supervisor was told."""
        guest, hosts = self._guest, self._hosts
        try:
            offers = self._offers(load)
            if functions:
                self._give_up(lambda lockdown: lockdown.enter(Role.WORKER, self._threads()))
            artifact = self._map_artifact()
            if load.wall_us:
                self._backstop.arm(load.wall_us / 1e6)
            module = self._engine.deserialize(artifact)
            os_.set_name(_NAME)
            self._give_up(Lockdown.lock)

            def bind(wanted: ImportType, _guest: Guest) -> RawFunction | None:
                offer = offers.get((wanted.module, wanted.name))
                return None if offer is None else hosts.bind(wanted, offer)

            hosts.reset()
            guest.instantiate(module, bind, load.fuel)
        except (WasmError, RemoteFailed, MemoryError, OSError) as exc:
            if isinstance(exc, OSError):  # out of memory, most likely
                exc = InstantiationError(f"the module cannot be loaded: {exc}", cause=Cause.HOST)
            self._outbox.write(error_message(exc, guest.last_fuel).frame())
            if isinstance(exc, MemoryError) or exc.__cause__ is not None:
                # It may be for want of memory: stay, as big as it is, until the supervisor has looked, and leaves.
                self._inbox.read(0)
            return False
        self._outbox.write(m.Loaded(guest.last_fuel).frame())
        for request in load.resolve:
            self._resolve(request)
        # What nobody waits for comes after the answer.
        gc.enable()  # the fork server had it off: a collection while starting costs more than it can find
        return True

    def _offers(self, load: m.Load) -> dict[tuple[str, str], Offer | RemoteOffer]:
        offers: dict[tuple[str, str], Offer | RemoteOffer] = {}
        if load.sys_path:
            sys.path[:] = load.sys_path
        for spec in load.offers:
            pd = m.PD_NAMES[spec.pd] or None
            if spec.where == m.Where.SUPERVISOR:
                offers[spec.module, spec.name] = RemoteOffer(spec.type, spec.index, pd)
            elif spec.where == m.Where.WORKER:
                offers[spec.module, spec.name] = Offer(spec.type, _unpickle(spec), pd)
            else:
                offers[spec.module, spec.name] = Offer(spec.type, None, pd)
        return offers

    def _map_artifact(self) -> memoryview:
        """The compiled module, which nobody can change any more."""
        fd = self._artifact
        if fd < 0:
            assert self._spare_socket is not None
            _, fds, _ = os_.recv_fds(self._spare_socket, 1, 1)
            self._spare_socket.detach()
            if len(fds) != 1:
                raise InstantiationError("the module could not be handed to the worker", cause=Cause.HOST)
            fd = fds[0]
        if self._listening is not None:
            self._listening.release()  # from now on what comes there is an interrupt
        elif self._socket >= 0:  # else it is a rehearsal
            os.close(self._socket)
        try:
            if not os_.is_sealed(fd):
                raise SystemExit("the artifact is not sealed")
            return memoryview(os_.map_readonly(fd))
        finally:
            os.close(fd)

    def _start_listening(self) -> None:
        """A thread of its own: a packet on the socket interrupts the guest, wherever it is in its own code.

        The supervisor sends one only while it waits for a call's reply, and takes any reply but the interrupt's trap
        for a doubt: so none can reach a later call. (Not `threading`: its hooks would cost every fork.)
        """
        self._listening, begun = _thread.allocate_lock(), _thread.allocate_lock()
        self._listening.acquire()
        begun.acquire()

        def listen() -> None:
            begun.release()
            self._listening.acquire()
            while os.read(self._socket, 1):
                self._engine.increment_epoch()

        _thread.stack_size(_LISTENER_STACK)
        _thread.start_new_thread(listen, ())
        # It makes calls of its own while it begins, which the filter will refuse.
        begun.acquire()

    # --- requests ---

    def _resolve(self, request: m.Resolve) -> None:
        export = self._guest.resolve(request.name.decode("utf-8"))
        # The buffers are sized by the real type; another one than the compiler found means that it was hostile.
        if export is None or export.type != request.type or export.params is None or export.results is None:
            raise SystemExit("an export is not what the compiler found")
        self._exports.append(export)
        # Results are written where arguments came: there must be room for the larger of the two.
        self._inbox.reserve(_CALL_SLOTS + export.nslots * SLOT_BYTES)

    def _call(self, length: int) -> bool:
        inbox, guest = self._inbox, self._guest
        number, flags, fuel, wall_us = m.CALL_LAYOUT.unpack_from(inbox.view, HEADER_BYTES)
        export = self._exports[number]
        if length != m.CALL_LAYOUT.size + export.params.nbytes:
            raise SystemExit("a call's slots do not match the export's type")
        self._start(wall_us, flags)
        try:
            used = guest.call(export, inbox.address + _CALL_SLOTS, fuel)
        except (WasmError, RemoteFailed, MemoryError) as exc:
            self._outbox.write(error_message(exc, guest.last_fuel).frame())
            return bool(flags & m.SPIN)
        nbytes = export.results.nbytes
        start = _CALL_SLOTS - _RESULT_HEAD
        HEADER.pack_into(inbox.view, start, m.RESULT_LAYOUT.size + nbytes, m.RESULT)
        m.RESULT_LAYOUT.pack_into(inbox.view, start + HEADER_BYTES, used)
        self._outbox.write_in_place(inbox.view, inbox.address, start, _RESULT_HEAD + nbytes)
        return bool(flags & m.SPIN)

    def _call_many(self, length: int) -> bool:
        inbox, guest = self._inbox, self._guest
        number, flags, fuel, wall_us, rows, width = m.CALL_MANY_LAYOUT.unpack_from(inbox.view, HEADER_BYTES)
        export = self._exports[number]
        stride = width * SLOT_BYTES
        if width != export.nslots or length != m.CALL_MANY_LAYOUT.size + rows * stride:
            raise SystemExit("a batch's slots do not match the export's type")
        self._start(wall_us, flags)
        call, address = guest.call, inbox.address + _BATCH_SLOTS
        used = done = 0
        failure: m.Error | None = None
        try:
            for done in range(rows):  # noqa: B007 - how many rows were done when one failed
                used += call(export, address, fuel - used)
                address += stride
            done = rows
        except (WasmError, RemoteFailed, MemoryError) as exc:
            used += guest.last_fuel
            failure = error_message(exc, 0)
        size = done * stride
        start = _BATCH_SLOTS - _RESULTS_HEAD
        HEADER.pack_into(inbox.view, start, m.RESULTS_LAYOUT.size + size, m.RESULTS)
        m.RESULTS_LAYOUT.pack_into(inbox.view, start + HEADER_BYTES, used, done, width, failure is not None)
        self._outbox.write_in_place(inbox.view, inbox.address, start, _RESULTS_HEAD + size)
        if failure is not None:
            self._outbox.write(failure.frame())
        return bool(flags & m.SPIN)

    def _start(self, wall_us: int, flags: int) -> None:
        if wall_us:
            self._backstop.arm(wall_us / 1e6)
        else:
            self._backstop.disarm()
        self._spin_in_call = bool(flags & m.SPIN)
        if not flags & m.CONTINUED:
            self._hosts.reset()

    def _memory(self, kind: int, payload: memoryview) -> bytes:
        guest = self._guest
        try:
            size = guest.memory_size() or 0
            if kind == m.MEM_READ:
                read = m.MemRead.decode(payload)
                if read.offset + read.total > size:
                    return m.Error(m.Failure.MEMORY).frame()
                return m.MemData(guest.memory_read(read.offset, read.length)).frame()
            write = m.MemWrite.decode(payload)
            if write.offset + write.total > size:
                return m.Error(m.Failure.MEMORY).frame()
            guest.memory_write(write.offset, write.data)
        except WasmError:
            return m.Error(m.Failure.MEMORY).frame()
        return m.MemDone().frame()

    # --- host calls to the supervisor (hostcalls.Remote) ---

    def call(self, index: int, slots: bytes, blobs: tuple[bytes, ...], nresult_bytes: int) -> bytes:
        """Have the supervisor run its function `index`; meanwhile it may read and write the guest's memory."""
        first, second = (*blobs, b"", b"")[:2]
        self._outbox.write(m.HostCall(index, slots, first, second).frame())
        if self._nested is None:
            self._nested = Inbox()
            self._nested.open(self._requests)
        inbox = self._nested
        while True:
            kind, length = inbox.read(time.perf_counter_ns() + SPIN_NS if self._spin_in_call else 0)
            payload = inbox.view[HEADER_BYTES : HEADER_BYTES + length]
            if kind == m.HOST_RETURN and length == nresult_bytes:
                return bytes(payload)
            if kind == m.HOST_FAIL:
                raise RemoteFailed
            if kind not in (m.MEM_READ, m.MEM_WRITE):
                raise SystemExit(f"unexpected message kind {kind} during a host call")
            self._outbox.write(self._memory(kind, payload))


def _unpickle(spec: m.OfferSpec) -> Callable[..., object]:
    """The function that the supervisor pickled: the one thing that is ever unpickled, and only in this direction."""
    import cloudpickle

    try:
        fn: Callable[..., object] = cloudpickle.loads(spec.pickled)  # noqa: TID251 - from our supervisor
    except BaseException as exc:  # also SystemExit, from the body of a module that it imports
        text = f"in_worker function for {spec.module!r}.{spec.name!r} cannot be unpickled in the worker"
        raise InstantiationError(f"{text}: {type(exc).__name__}: {exc}", cause=Cause.HOST_FUNCTION) from exc
    if not callable(fn):
        raise CallError("in_worker did not carry a function")
    return fn
