"""The fork server's process: warms the engine once, then forks workers and compilers and reports how they end.

It runs nobody's code but ours, never compiles (a child compiles the warm-up module), never unpickles (it imports
cloudpickle for the workers that will), and has one thread.

Who owns what. The control socket is the supervisor's end of everything: packets in, packets out, and its end of
file is the order to leave. Every child's pid is ours until the supervisor has acknowledged its end; only then is
it reaped, so that no pid that the supervisor knows can be reused. A child's pipe ends arrive with SPAWN and are
closed here right after the fork. The pidfd of the supervisor fires when it dies, even if a process that the
user's program forked still holds the control socket.

What if. Interrupted calls: Python repeats them, and we install no handlers. The control socket is full: packets
wait in `_outbox` until it is writable; we never block on it. A child dies at any moment: its pidfd becomes
readable. We are killed: children have SIGKILL as their parent-death signal. SIGINT is ignored: it is the user's.
"""

from __future__ import annotations

import collections
import errno
import gc
import os
import select
import signal
import socket
import sys
from typing import Any, Final, NoReturn

from ..platform import os_
from ..protocol import control as c
from .unpickler import Unpickler

_NAME: Final = "pdsandbox-fork"
# The engine reserves 4 GiB and some guard pages for each memory; more only for one that may be larger, and twice that
# while it moves.
_RESERVED_BYTES: Final = 5 << 30
# Of addresses, for whatever else maps them: libraries of the user's functions, the allocators.
_SPACE_SLACK: Final = 2 << 30


def main(control_fd: int, supervisor_pid: int) -> NoReturn:
    """Entry point of the process; `control_fd` is the inherited socket, `supervisor_pid` our parent."""
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    # Our parent by birth: opened before anything slow, so that the pid cannot have been reused.
    supervisor = os_.pidfd_open(supervisor_pid) if os.getppid() == supervisor_pid else -1
    if supervisor < 0:
        os._exit(0)
    # What is ignored or blocked survives exec: the user's program may ignore SIGCHLD (then children vanish without
    # a status) or block SIGALRM (then the workers' own timer never ends them).
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:  # None: kept by the C library
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os_.close_all_but({control_fd, supervisor})
    os_.set_name(_NAME)
    os.chdir("/")
    os_.forbid_core_dumps()
    control.settimeout(None)
    gc.disable()  # nothing is garbage yet, and looking for it takes a tenth of the start
    _import_all()  # while the supervisor, perhaps, does the same
    try:
        data = control.recv(c.PACKET_BYTES)
    except ConnectionResetError:
        data = b""
    if not data:
        os._exit(0)  # the supervisor left before it began
    packet = c.decode(data)
    if not isinstance(packet, c.Config):
        raise SystemExit("the first packet must be CONFIG")
    server = ForkServer(control, supervisor, packet)
    server.warm()
    try:
        server.serve()
    except BaseException:
        # Whatever it is, nobody may outlive us, and the supervisor must hear of it: by our end, and our last words.
        sys.excepthook(*sys.exc_info())
        server.leave(1)
    server.leave(0)


def _compiled(pid: int, pipe: int) -> bytes:
    with open(pipe, "rb") as file:
        artifact = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"compiling the warm-up module failed: status {status}")
    return artifact


def _import_all() -> None:
    """What `warm` needs, which needs nothing yet of what the supervisor will say."""
    from ..platform.lockdown import cgroup  # noqa: F401
    from ..runtime import capi, engine  # noqa: F401
    from ..worker import compiler, lockdown, loop, rehearsal, survey, warmup  # noqa: F401


class ForkServer:
    """Children by ticket, and the loop that serves the control socket."""

    def __init__(self, control: socket.socket, supervisor: int, config: c.Config) -> None:
        self._control = control
        self._supervisor = supervisor
        self._config = config
        self._children: dict[int, tuple[int, int]] = {}  # ticket -> (pid, pidfd)
        self._ticket_of: dict[int, int] = {}  # pidfd -> ticket
        self._outbox: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._poll = select.epoll()
        self._poll_wants = select.EPOLLIN
        self._poll.register(control, self._poll_wants)
        self._poll.register(supervisor, select.EPOLLIN)
        self._engine: Any = None
        self._worker: Any = None
        self._compile: Any = None
        self._unpickler = Unpickler()
        self._cgroups: Any = None
        self._lockdown: Any = None
        self._seen: tuple[c.Seen, ...] = ()
        self._data: int | None = None
        self._compiler_data: int | None = None
        self._space: int | None = None
        self._compiler_space: int | None = None
        self._descriptors = os_.raise_descriptor_limit()
        self._pid = os.getpid()

    def warm(self) -> None:
        """Load the engine and touch what every worker will touch, so that it is shared by all forks."""
        from ..platform.lockdown import cgroup
        from ..runtime import capi, engine
        from ..worker import compiler, lockdown, loop, rehearsal, survey, warmup

        gc.enable()
        capi.load(self._config.library)
        self._engine = engine.Engine(
            fuel=self._config.fuel, interruptible=self._config.interruptible, stack_bytes=self._config.stack_bytes
        )
        compiling = self._begin_compiling(warmup.SOURCE)
        self._compile = compiler.run
        try:  # while the child compiles
            if self._config.cgroup:
                self._cgroups = cgroup.Leaves(self._config.cgroup, self._pid)
            cpu_s = {c.Role.WORKER: self._config.cpu_s, c.Role.COMPILER: self._config.compiler_cpu_s}
            self._lockdown = lockdown.Lockdown(self._config.layers, cpu_s)
            self._lockdown.prepare()
        except BaseException:
            os.kill(compiling[0], signal.SIGKILL)
            os.waitpid(compiling[0], 0)
            raise
        artifact = _compiled(*compiling)
        warm = warmup.warm(self._engine, artifact)
        self._worker = loop.Worker(self._engine, warm, self._config)
        self._engine.reserve_switches(self._config.instances)
        look = survey.survey_briefly if self._config.brief else survey.survey
        self._seen = look(self._lockdown)
        self._lockdown.finish()
        if len(os.listdir("/proc/self/task")) != 1:
            raise SystemExit("the fork server has more than one thread")
        self._data = os_.data_ceiling(self._config.data_more)
        self._compiler_data = os_.data_ceiling(self._config.compiler_data_more)
        self._space, self._compiler_space = _space_ceilings(self._config)
        if not self._config.brief:
            gc.collect()  # drops what was specialised and cached, so it comes first
        rehearsal.rehearse(self._engine, warm, self._config, artifact)
        os_.set_name(_NAME)
        # From here on a collection would only touch pages that forks share.
        gc.freeze()
        gc.disable()

    def _begin_compiling(self, source: bytes) -> tuple[int, int]:
        """Compile our own warm-up module in a child: a process that has compiled must never fork (its children may
        hang). Its pid, and where it writes the artifact."""
        r, w = os_.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                module = self._engine.compile(source, text=True)
                data = memoryview(module.serialize())
                while data:
                    data = data[os.write(w, data) :]
                os._exit(0)
            finally:
                os._exit(1)
        os.close(w)
        return pid, r

    def serve(self) -> None:
        """Until the supervisor closes the socket or dies."""
        own = os_.pidfd_open(self._pid)
        self._send(c.Hello(self._pid, self._seen, self._data, self._compiler_data), [own])
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._supervisor:
                    return
                if fd == self._control.fileno():
                    self._flush()
                    if self._receive():
                        return
                else:
                    self._child_ended(fd)

    def _receive(self) -> bool:
        """Serve what was sent; whether the supervisor has left."""
        while True:
            try:
                data, fds, truncated = os_.recv_fds(self._control, c.PACKET_BYTES, c.SPAWN_FDS + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True  # a peer that died with packets unread
            if not data:
                return True
            packet = c.decode(data)
            if isinstance(packet, c.Spawn):
                self._spawn(packet, fds, truncated=truncated)
            elif isinstance(packet, c.Kill):
                os_.pidfd_kill(self._children[packet.ticket][1])
            elif isinstance(packet, c.Acknowledge):
                self._reap(packet.ticket)
            else:
                raise SystemExit(f"unexpected packet {packet}")

    def _spawn(self, packet: c.Spawn, fds: list[int], *, truncated: bool) -> None:
        try:
            if truncated or not c.SPAWN_FDS <= len(fds) <= c.SPAWN_FDS + 1:
                raise OSError(errno.EMFILE, "descriptors did not fit")
            # In the child above 2 as well: the user's program may run without standard streams, but we do not.
            if self._cgroups is not None:
                rss = self._config.rss_bytes if packet.role == c.Role.WORKER else self._config.compiler_rss_bytes
                self._cgroups.make(packet.ticket, rss)
            if packet.unpickler:
                self._unpickler.prepare(packet.unpickler)
            pid = os.fork()
            if pid == 0:
                self._become_child(packet, fds)
            os_.give_way()  # to the supervisor, which has more to tell the child; our report can wait
            pidfd = -1
            try:
                pidfd = os_.pidfd_open(pid)
                self._poll.register(pidfd, select.EPOLLIN)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                if pidfd >= 0:
                    os.close(pidfd)
                raise
            self._children[packet.ticket] = (pid, pidfd)
            self._ticket_of[pidfd] = packet.ticket
            self._send(c.Spawned(packet.ticket, pid), [pidfd])
        except OSError as exc:
            if self._cgroups is not None:
                self._cgroups.remove(packet.ticket)
            self._send(c.Refused(packet.ticket, exc.errno or errno.EIO), [])
        finally:
            for fd in fds:
                os.close(fd)

    def _become_child(self, packet: c.Spawn, fds: list[int]) -> NoReturn:
        """In the fork: nothing of the fork server may be reachable, and nothing may return into its loop."""
        status = 70  # EX_SOFTWARE, when even reporting failed
        try:
            os_.die_with_parent(self._pid)
            requests, replies, sock, stderr, *artifact = fds
            os.dup2(stderr, 2)
            # The objects that own what is closed here are never collected: this process leaves by _exit.
            if self._cgroups is not None:
                self._cgroups.enter(packet.ticket)
            lockdown = self._lockdown
            # A compiler has no use for the socket.
            used = {requests, replies} if packet.role == c.Role.COMPILER else {requests, replies, sock, *artifact}
            os_.close_all_but(used | lockdown.descriptors)
            if packet.role == c.Role.COMPILER:
                os_.set_name("pdsandbox-comp")
                os_.set_ceilings(self._compiler_data, self._compiler_space, self._descriptors)
                status = self._compile(self._engine, requests, replies, lockdown)
            else:
                if packet.unpickler:
                    self._unpickler.after_fork()
                os_.set_ceilings(self._data, self._space, self._descriptors)
                status = self._worker.run(
                    requests, replies, sock, artifact[0] if artifact else -1, lockdown, late=packet.late
                )
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _child_ended(self, pidfd: int) -> None:
        ended = os_.pidfd_peek(pidfd)
        if ended is None:
            return
        # Level-triggered and not yet reaped: it would fire for ever.
        self._poll.unregister(pidfd)
        used = os_.usage_of(pidfd) or (None, None)
        self._send(c.Exited(self._ticket_of[pidfd], ended.signal, ended.exit_code, *used), [])

    def _reap(self, ticket: int) -> None:
        _, pidfd = self._children.pop(ticket)
        del self._ticket_of[pidfd]
        os_.pidfd_reap(pidfd)
        os.close(pidfd)
        if self._cgroups is not None:
            self._cgroups.remove(ticket)

    def _send(self, packet: c.Packet, fds: list[int]) -> None:
        self._outbox.append((c.encode(packet), fds))
        self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                data, fds = self._outbox[0]
                os_.send_fds(self._control, data, fds, socket.MSG_DONTWAIT)
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._outbox.clear()  # reading says so, too, and that ends the loop
        want = select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)
        if self._poll_wants != want:
            self._poll.modify(self._control, want)
            self._poll_wants = want

    def leave(self, status: int) -> NoReturn:
        """End, and everybody with us: all are killed first, then reaped, so that none outlives us."""
        for _, pidfd in self._children.values():
            os_.pidfd_kill(pidfd)
        for _, pidfd in self._children.values():
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        if self._cgroups is not None:
            self._cgroups.remove_all()
        os._exit(status)


def _space_ceilings(config: c.Config) -> tuple[int | None, int | None]:
    """Addresses for a worker and for a compiler; no limit where the memory that they may use has none."""
    worker = compiler = None
    if config.data_more is not None and config.memory_bytes is not None:
        memories = config.instances * config.memories * (_RESERVED_BYTES + 2 * config.memory_bytes)
        worker = os_.space_ceiling(memories + config.data_more + _SPACE_SLACK)
    if config.compiler_data_more is not None:
        compiler = os_.space_ceiling(config.compiler_data_more + _SPACE_SLACK)
    return worker, compiler
