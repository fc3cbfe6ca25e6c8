"""A worker's life until it serves: its pipes, its lock-down, its one module. Then `serve` has it until its pipes close.

One thread. It owns the socket until the module is loaded, and the module: further guests are made of that.
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

from ..calls import UNLIMITED
from ..errors import CallError, Cause, InstantiationError, WasmError
from ..externs import ImportType
from ..imports import Offer
from ..platform import os_
from ..protocol import messages as m
from ..protocol.control import NOT_LOCKED_DOWN, Config, Role
from ..protocol.frames import HEADER_BYTES
from ..runtime import verdict
from ..runtime.binding import answer_wasi
from ..runtime.engine import Engine, Module
from ..runtime.guest import Guest, RawFunction
from ..runtime.hostcalls import HostCalls, RemoteOffer
from ..runtime.reactor import constructor
from . import warmup
from .faults import RemoteFailed, error_message
from .lockdown import Lockdown, enter
from .pipes import Leave
from .serve import Server
from .streams import system_of
from .tenant import Tenant

_NAME: Final = "pdsandbox-work"
# It reads a byte and makes one call; the default would take 8 MiB of what RLIMIT_DATA allows.
_LISTENER_STACK: Final = 256 << 10
_READY: Final = m.Ready().frame()


class Worker:
    """The loop, and the guest that it drives. Made in the fork server, with its store and buffers; serves in one fork.

    Whatever is made before the fork is memory that no worker has to touch for it.
    """

    def __init__(self, engine: Engine, warm: Module, limits: Config) -> None:
        self._engine = engine
        self._warm = warm
        self._limits = limits
        self._socket = -1
        self._artifact = -1
        self._server = Server()
        self._server.on_load = self._add
        self._first = self._make_tenant()
        self._server.admit(self._first)
        self._module: Module | None = None
        self._lockdown: Lockdown | None = None
        self._spare_socket: socket.socket | None = None
        self._listening: Any = None  # a lock that the thread for interrupts waits for

    def _make_tenant(self) -> Tenant:
        limits = self._limits
        guest = Guest(
            self._engine,
            memory_bytes=limits.memory_bytes,
            memories=limits.memories,
            table_elements=limits.table_elements,
        )
        hosts = HostCalls(
            guest,
            host_calls=limits.host_calls,
            host_call_bytes=limits.host_call_bytes,
            message_bytes=limits.message_bytes,
            remote=self._server,
        )
        return Tenant(guest, hosts)

    def run(
        self,
        requests: int,
        replies: int,
        sock: int,
        artifact: int,
        lockdown: Lockdown | None,
        *,
        late: bool = False,
    ) -> int:
        """In the fork: serve until the supervisor leaves; the process's exit code.

        artifact   the module's memfd, or -1 for a spare, which gets it over the socket
        lockdown   None in a rehearsal
        late       LOAD brings functions of the user's, or directories, which are taken in before anything is given up:
                   what the functions import is still there
        """
        self._socket, self._artifact = sock, artifact
        self._lockdown = lockdown
        self._server.open(requests, replies)
        if artifact < 0:  # made now, because it asks the kernel what it is
            self._spare_socket = socket.socket(fileno=sock)
        try:
            if late:
                self._serve(late=True)
            elif not self._enter():
                return NOT_LOCKED_DOWN
            else:
                self._serve(late=False)
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
        self._first.close()
        self._server.__dict__.clear()
        self.__dict__.clear()

    def _serve(self, *, late: bool) -> None:
        """READY, one LOAD, then requests."""
        server = self._server
        server.outbox.write(_READY)
        if self._artifact < 0:
            # A spare: nobody waits for it, so it may as well touch its pages now.
            os_.set_name(_NAME)
            warmup.run_once(self._engine, self._warm)
        kind, length = server.inbox.complete(-1)
        if kind != m.LOAD:
            raise SystemExit(f"unexpected message kind {kind} before LOAD")
        load = m.Load.decode(server.inbox.view[HEADER_BYTES : HEADER_BYTES + length])
        if self._load(self._first, load, late=late):
            server.serve()

    # --- loading ---

    def _add(self, load: m.Load) -> None:
        """One more instance of the module. One that failed stays, too, until it is dropped: it may be for want of
        memory, and the supervisor has yet to look."""
        tenant = self._make_tenant()
        tenant.number = load.instance
        self._server.admit(tenant)
        self._load(tenant, load, late=False)

    def _load(self, tenant: Tenant, load: m.Load, *, late: bool) -> bool:
        """Instantiate; False when that failed and the supervisor was told."""
        guest, hosts, server = tenant.guest, tenant.hosts, self._server
        adding, spent = self._module is not None, 0
        try:
            offers = self._offers(load)
            dirs = [] if load.wasi is None else self._take_dirs(load.wasi)
            if late:
                self._give_up(lambda lockdown: lockdown.grant(dirs))
                self._give_up(lambda lockdown: lockdown.enter(Role.WORKER, self._threads()))
            system = tenant.system = None if load.wasi is None else system_of(load.wasi, guest, server, dirs)
            artifact = -1 if adding else self._take_artifact()
            if load.wall_us:
                server.backstop.arm(load.wall_us, time.monotonic())
            module = self._module or self._open(artifact, mapped=not dirs)

            def bind(wanted: ImportType, _guest: Guest) -> RawFunction | None:
                offer = offers.get((wanted.module, wanted.name))
                return answer_wasi(wanted, system) if offer is None else hosts.bind(wanted, offer)

            hosts.reset()
            guest.instantiate(module, bind, load.fuel)
            if system is not None:
                spent, guest.last_fuel = guest.last_fuel, 0
                self._construct(tenant, (UNLIMITED if load.fuel is None else load.fuel) - spent)
        except (WasmError, RemoteFailed, MemoryError, OSError) as exc:
            if isinstance(exc, OSError):  # out of memory, most likely
                exc = InstantiationError(f"the module cannot be loaded: {exc}", cause=Cause.HOST)
            server.outbox.write(error_message(exc, spent + guest.last_fuel).frame())
            if not adding and (isinstance(exc, MemoryError) or exc.__cause__ is not None):
                # It may be for want of memory: stay, as big as it is, until the supervisor has looked, and leaves.
                server.inbox.complete(-1)
            return False
        guest.find_memory_soon()
        server.outbox.write(m.Loaded(spent + guest.last_fuel, *guest.where()).frame())
        # What nobody waits for comes after the answer.
        for number, request in enumerate(load.resolve, load.first):
            server.resolve(request, tenant, number)
        guest.find_memory()
        gc.enable()  # the fork server had it off: a collection while starting costs more than it can find
        return True

    def _open(self, artifact: int, *, mapped: bool) -> Module:
        """The module, which all instances here share; no further code will come. Where no file may be mapped later on,
        as the engine does with what a memory holds at first, the code is copied instead."""
        if mapped:
            module = self._engine.deserialize_mapped(artifact)
        else:
            with os_.map_readonly(artifact) as copy:
                module = self._engine.deserialize(copy)
        self._module = module
        os.close(artifact)
        os_.set_name(_NAME)
        self._give_up(Lockdown.lock)
        return module

    def _take_dirs(self, spec: m.WasiSpec) -> list[tuple[int, bool]]:
        """The guest's directories, which came over the socket: (descriptor, whether it may write there)."""
        if not spec.dirs:
            return []
        with socket.socket(fileno=os.dup(self._socket)) as sock:
            _, fds, _ = os_.recv_fds(sock, 1, len(spec.dirs))
        if len(fds) != len(spec.dirs):
            raise InstantiationError("the directories could not be handed to the worker", cause=Cause.HOST)
        return [(fd, item.writable) for fd, item in zip(fds, spec.dirs, strict=True)]

    def _construct(self, tenant: Tenant, fuel: int) -> None:
        """Run a reactor's `_initialize` with what instantiating has left of its fuel."""
        bound = constructor(tenant.guest)
        if bound is not None:
            tenant.hosts.reset()
            try:
                bound.call(fuel)
            except WasmError as exc:
                told = verdict.while_instantiating(exc)
                if told is exc:
                    raise
                raise told from exc

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

    def _take_artifact(self) -> int:
        """The compiled module, which nobody can change any more, as a descriptor."""
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
        if not os_.is_sealed(fd):
            raise SystemExit("the artifact is not sealed")
        return fd

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


def _unpickle(spec: m.OfferSpec) -> Callable[..., object]:
    """The function that the supervisor pickled: the one thing that is ever unpickled, and only in this direction."""
    try:
        import cloudpickle  # the fork server has it already, or failed to get it

        fn: Callable[..., object] = cloudpickle.loads(spec.pickled)  # noqa: TID251 - from our supervisor
    except BaseException as exc:  # also SystemExit, from the body of a module that it imports
        text = f"in_worker function for {spec.module!r}.{spec.name!r} cannot be unpickled in the worker"
        raise InstantiationError(f"{text}: {type(exc).__name__}: {exc}", cause=Cause.HOST_FUNCTION) from exc
    if not callable(fn):
        raise CallError("in_worker did not carry a function")
    return fn
