"""The supervisor's end of one fork server: starts it, asks for children, and hears how they end.

The process is started by exec (`subprocess`, which uses vfork), never by a bare fork, because the user's process has
threads. It gets an empty environment, `/`, /dev/null for standard input and output, a pipe for standard error (for
the reason when it fails to start), its own session, and one descriptor: its end of the control socket.

Threads: any thread sends SPAWN (one packet is atomic; `_lock` keeps tickets and handles together, and the socket open
while one is sent); only the housekeeper receives. If the user's program reaps our child with waitpid(-1), or ignores
SIGCHLD, nothing is lost: its end shows on the control socket, and its pidfd (sent by itself) cannot mean another
process. It is killed through that pidfd, and reaped through it if nobody else has.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Final

from ..errors import Cause, InstantiationError, WasmError
from ..hardening import Layer
from ..platform import os_
from ..protocol import control as c
from ..protocol.codec import ProtocolError
from ..text import one_line
from . import launch, monitor, reports
from .ends import Ends
from .handle import Handle
from .journal import Journal
from .latch import Latch
from .spawned import Spawned

# A packet waits only while the fork server is busy forking for others: a millisecond each.
SEND_TIMEOUT_S: Final = 10.0
LEAVE_TIMEOUT_S: Final = 5.0
# The housekeeper hears a dead fork server's last words within a wake-up.
EPITAPH_TIMEOUT_S: Final = 2.0

_tickets = itertools.count(1)


def interpreter(python: str | None) -> str:
    """The Python to start; InstantiationError, saying what to do, when this process is not one."""
    if python is not None:
        return python
    if getattr(sys, "frozen", False) or not sys.executable:
        text = (
            "this program is a frozen or embedding interpreter: pass python=, the path of a Python to run workers with"
        )
        raise InstantiationError(text, cause=Cause.HOST)
    return sys.executable


class ForkServer:
    """One fork server process, and the children it was asked for: by ticket, until they are known to have ended."""

    def __init__(self, python: str, config: c.Config, registry: set[Handle], journal: Journal) -> None:
        self._asked = time.monotonic()
        self._journal = journal
        self._handles: dict[int, Handle] = {}
        self._registry = registry
        self._config = config
        # Where the service cannot raise it, nobody sets it either.
        self._cpu_s = None if os_.cpu_is_limited() or Layer.RLIMITS not in config.layers else config.cpu_s
        self._lock = threading.Lock()
        self._gone: str | None = None
        self._broken = False
        self._leaving = False
        self._buried = Latch()  # why it died is known
        self._warm = Latch()  # it has said HELLO, or is gone
        self._seen: tuple[c.Seen, ...] = ()
        self._ceilings: dict[int, int | None] = {}  # by role: RLIMIT_DATA
        self._pidfd = -1
        self.pid: int | None = None
        first = c.encode(config)
        started = launch.take(python, first)
        if started is not None:
            self.control = socket.socket(fileno=started.control)
            self._stderr = started.stderr
            self._process: subprocess.Popen[bytes] | Spawned = Spawned(started.pid)
        else:
            self._start(python)
        os.set_blocking(self._stderr, False)
        self.pid = self._process.pid
        self.control.setblocking(False)
        try:
            if started is None or started.said is None:
                self.control.send(first, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            self._broken = True  # it has died already; the housekeeper will hear why

    def _start(self, python: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.control = socket.socket(fileno=os_.above_std(ours.detach()))
            theirs = socket.socket(fileno=os_.above_std(theirs.detach()))
            self._stderr, stderr_write = os_.pipe()
            try:
                self._process = subprocess.Popen(
                    launch.command(python, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr_write,
                    pass_fds=(theirs.fileno(),),
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                os.close(self._stderr)
                raise
            finally:
                os.close(stderr_write)
        except BaseException:
            ours.close()
            if hasattr(self, "control"):
                self.control.close()
            raise
        finally:
            theirs.close()

    @property
    def gone(self) -> bool:
        """Nobody can be spawned any more, and everybody is lost."""
        return self._gone is not None

    @property
    def lost(self) -> bool:
        """`gone`, or seen to be so by a sender before the housekeeper has heard of it."""
        return self._gone is not None or self._broken

    def fileno(self) -> int:
        return self.control.fileno()

    def handles(self) -> list[Handle]:
        """The children that are not known to have ended."""
        with self._lock:
            return list(self._handles.values())

    # --- any thread ---

    def wait_warm(self, timeout_s: float) -> tuple[c.Seen, ...]:
        """What it saw of its children's lock-down. InstantiationError, HOST, when it dies first or is not in time."""
        if not self._warm.wait(timeout_s) or self._gone is not None:
            text = f"a worker could not be started: {self._gone or f'no fork server after {timeout_s:g} s'}"
            raise InstantiationError(text, cause=Cause.HOST)
        return self._seen

    def spawn(
        self,
        role: int,
        owner: object,
        *,
        artifact: int | None = None,
        late: bool = False,
        unpickler: str = "",
        wait: bool = True,
    ) -> Handle:
        """Ask for a child; the handle tells later whether there is one. InstantiationError, HOST, if not even that.

        `owner`: who ends the child; if that object goes without having done so, the housekeeper does.
        `artifact`: a descriptor (it stays the caller's) of the module that the worker will load.
        `late`, `unpickler`: see `control.Spawn`.
        `wait` False: BlockingIOError instead of waiting when the fork server is busy.
        """
        ends = Ends()
        ticket = next(_tickets)
        oom = functools.partial(self._out_of_memory, ticket, role)
        told = functools.partial(reports.worker_ended, self._journal)
        handle = Handle(ticket, role, ends, owner, self._registry, cpu_s=self._cpu_s, out_of_memory=oom, on_end=told)
        try:
            with self._lock:
                if self._gone is not None:
                    raise InstantiationError(f"a worker could not be started: {self._gone}", cause=Cause.HOST)
                self._handles[ticket] = handle
            try:
                self._send(
                    c.Spawn(ticket, role, late, unpickler),
                    ends.child if artifact is None else [*ends.child, artifact],
                    wait=wait,
                )
            except BaseException:
                with self._lock:
                    self._handles.pop(ticket, None)
                raise
        except BaseException:
            # An interrupt may have come after the packet had left: the child may be there, and its pidfd here.
            handle.on_lost("nobody waits for it")
            handle.release()
            raise
        os_.give_way()  # it was woken on this core, and what we have left to do can wait until it has forked
        ends.close_child()
        return handle

    def _out_of_memory(self, ticket: int, role: int) -> WasmError | None:
        """The verdict on a child that the kernel ended because it reached its cgroup's limit."""
        config = self._config
        limit = config.rss_bytes if role == c.Role.WORKER else config.compiler_rss_bytes
        if not config.cgroup or limit is None or self.pid is None:
            return None
        try:
            used = os_.cgroup_out_of_memory(config.cgroup, self.pid, ticket)
        except OSError:  # somebody took the leaf away: then only the signal is known
            return None
        return None if used is None else monitor.rss_exceeded(used, limit)

    def _send(self, packet: c.Packet, fds: list[int], *, wait: bool = True) -> None:
        data = c.encode(packet)
        while True:
            control = self.control.fileno()
            try:
                with self._lock:  # `dispose` closes it at any moment, and then its number may be another's
                    if self.control.fileno() < 0:
                        raise BrokenPipeError
                    os_.send_fds(self.control, data, fds)
            except BlockingIOError:
                if not wait:
                    raise
                poll = select.poll()
                poll.register(control, select.POLLOUT)
                if not poll.poll(SEND_TIMEOUT_S * 1000):
                    text = f"the fork server did not answer for {SEND_TIMEOUT_S:g} s"
                    raise InstantiationError(text, cause=Cause.HOST) from None
            except (BrokenPipeError, ConnectionResetError) as exc:
                self._broken = True
                if wait:
                    self._buried.wait(EPITAPH_TIMEOUT_S)
                text = f"a worker could not be started: {self._gone or 'the fork server is gone'}"
                raise InstantiationError(text, cause=Cause.HOST) from exc
            else:
                return

    # --- the housekeeper ---

    def receive(self) -> None:
        """Deliver every packet that is there. At end of file, or at nonsense, everybody is lost."""
        while self._gone is None:
            try:
                data, fds, _ = os_.recv_fds(self.control, c.PACKET_BYTES, 2)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, fds = b"", []
            try:
                if not data:
                    self._lose(self._epitaph())
                    return
                self._deliver(c.decode(data), fds)
            except ProtocolError as exc:
                self._lose(f"the fork server broke its protocol: {exc}")
            finally:
                for fd in fds:
                    os.close(fd)

    def _deliver(self, packet: c.Packet, fds: list[int]) -> None:
        if isinstance(packet, c.Hello):
            if len(fds) != 1 or self._pidfd >= 0:
                raise ProtocolError("HELLO without a pidfd, or said twice")
            self._pidfd = os_.above_std(fds.pop())
            self._seen = packet.seen
            self._ceilings = {c.Role.WORKER: packet.data, c.Role.COMPILER: packet.compiler_data}
            self._warm.set()
            reports.fork_server_started(self._journal, self._process.pid, self._asked)
        elif isinstance(packet, c.Spawned):
            self._on_spawned(packet, fds)
        elif isinstance(packet, c.Refused):
            handle = self._drop(packet.ticket)
            if handle is not None:
                handle.on_refused(packet.errno)
        elif isinstance(packet, c.Exited):
            handle = self._drop(packet.ticket)
            if handle is not None:
                handle.used = packet.cpu_us, packet.peak_bytes
                handle.on_exited(packet.signal, packet.exit_code)
            self._tell(c.Acknowledge(packet.ticket))
        else:
            raise ProtocolError(f"unexpected packet {type(packet).__name__}")

    def _on_spawned(self, packet: c.Spawned, fds: list[int]) -> None:
        handle = self._handles.get(packet.ticket)
        if handle is not None and handle.pid is not None:
            raise ProtocolError("a child was announced twice")
        try:
            if len(fds) != 1:
                raise OSError(errno.EMFILE, "the pidfd did not fit")
            memory = os_.open_memory(packet.pid)
        except OSError as exc:
            # Out of descriptors here: one that cannot be held, or watched, may not live.
            self._tell(c.Kill(packet.ticket))
            if handle is not None:
                handle.on_refused(exc.errno or errno.EMFILE)
            return
        pidfd = os_.above_std(fds.pop())
        with self._lock:
            # Not between these two: who is torn away (KeyboardInterrupt) after it has asked takes the handle out, and
            # then either finds these descriptors in it, or nobody does.
            if packet.ticket in self._handles:
                handle = self._handles[packet.ticket]
                reports.worker_started(self._journal, handle, packet.pid)  # before anybody can use it
                handle.on_spawned(packet.pid, pidfd, memory, self._ceilings.get(handle.role))
                return
        os.close(memory)
        os.close(pidfd)
        self._tell(c.Kill(packet.ticket))

    def _tell(self, packet: c.Packet) -> None:
        """From the housekeeper, which waits for nobody: a fork server that leaves a full socket unread is broken."""
        try:
            self._send(packet, [], wait=False)
        except BlockingIOError:
            self._lose("the fork server does not answer")
        except InstantiationError:
            pass  # it has died: end of file comes next

    def _drop(self, ticket: int) -> Handle | None:
        with self._lock:
            return self._handles.pop(ticket, None)

    def _epitaph(self) -> str:
        try:
            text = os.read(self._stderr, 8192).decode("utf-8", "replace").strip()
        except BlockingIOError:
            text = ""
        last = one_line(text.splitlines()[-1], 300) if text else ""
        return "the fork server died" + (f": {last}" if last else "")

    def _lose(self, what: str) -> None:
        with self._lock:
            self._gone = what
            handles = list(self._handles.values())
            self._handles.clear()
        if not self._leaving:
            reports.fork_server_lost(self._journal, self._process.pid, len(handles), what)
        self._buried.set()
        self._warm.set()
        self._kill()
        for handle in handles:
            handle.on_lost(what)

    # --- ending ---

    def leave(self) -> None:
        """End the fork server and all its children, and wait until they are gone. The housekeeper must have stopped."""
        self._leaving = True
        if self._gone is None:
            self.control.shutdown(socket.SHUT_RDWR)  # the order to leave
            self._wait_exited(LEAVE_TIMEOUT_S)
            self._lose("the supervisor is closed")
        self.dispose()

    def dispose(self) -> None:
        """Once gone, and nobody polls the control socket any more: reap, and close everything. Twice is allowed."""
        if self._stderr < 0:
            return
        self._wait_exited(LEAVE_TIMEOUT_S)
        with self._lock:
            self.control.close()
        os.close(self._stderr)
        self._stderr = -1
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _kill(self) -> None:
        if self._pidfd >= 0:
            os_.pidfd_kill(self._pidfd)
        else:
            self._process.kill()

    def _wait_exited(self, timeout_s: float) -> bool:
        """Wait, and reap if the user's program has not done so."""
        if self._pidfd < 0:
            # It never said HELLO: only its pid is known, and only Popen knows whether it was reaped here.
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            return True
        if not os_.pidfd_exited(self._pidfd, timeout_s):
            return False
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            pass  # somebody else's waitpid(-1), or SIGCHLD is ignored
        # Popen would poll the pid, which may be somebody else's by now, when it is collected.
        self._process.returncode = -signal.SIGKILL
        return True
