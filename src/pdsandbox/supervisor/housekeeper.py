"""The supervisor's one background thread: hears the fork server, watches what nobody waits for, cleans up.

It receives the fork server's packets; ends calls whose deadline passes while a host function keeps their thread;
looks at idle workers' memory and standard error; keeps spares ready; does `later` what finalisers may not (they append
to a deque, which takes no lock and does no I/O).

It wakes on the control socket, on its event descriptor, at the next deadline, and every TICK_S. It takes a worker's
turn only without waiting. Nothing a worker does can block it: all reads are non-blocking and bounded.
"""

from __future__ import annotations

import atexit
import collections
import functools
import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from .. import generation
from ..errors import Cause, WasmError
from ..platform import os_
from . import monitor
from .forkclient import ForkServer
from .handle import Handle

# Idle workers cannot run guest code, so nothing is urgent: four wake-ups a second cost 0.02 % of a core.
TICK_S: Final = 0.25


class Housekeeper:
    """See the module's text. `tick` is called about every TICK_S."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self.generation = generation.now
        self._wake = os_.above_std(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._fork_servers: dict[int, ForkServer] = {}
        self._stop = False
        self._lock = threading.Lock()
        self._watched: dict[Handle, None] = {}
        self.handles: set[Handle] = set()  # all that hold descriptors
        self.next_wake = math.inf
        self._next_tick = 0.0
        self.stopped = False
        self.failed = False  # and is of no use any more
        self._abandoned: collections.deque[Callable[[], Any]] = collections.deque()
        self._thread = threading.Thread(target=self._run, name="pdsandbox", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            os.close(self._wake)
            raise
        running.add(self)

    def stop(self) -> None:
        """End the thread, and wait until it has ended everything: see `_leave`. Twice is allowed."""
        self._stop = True
        self.wake()
        self._thread.join()
        self._clean_up()  # what was left between its last look and its end

    def stop_soon(self) -> None:
        """The same without waiting; for the thread itself."""
        self._stop = True

    def wake(self) -> None:
        """Make it look around now."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def adopt(self, fork_server: ForkServer) -> None:
        """Listen to this fork server as well. One that died is heard out: its workers' callers must learn why."""
        with self._lock:
            self._fork_servers[fork_server.fileno()] = fork_server
            self._poll.register(fork_server.fileno(), select.POLLIN)
        self.wake()

    def watch_host_calls(self, handle: Handle) -> None:
        """Host functions will run in the thread of a call. While `handle.host_deadline` is set, one does, and its
        worker is to be ended then in that thread's stead. Whoever sets one before `next_wake` must `wake`."""
        self._watched[handle] = None

    def unwatch_host_calls(self, handle: Handle) -> None:
        """No more will."""
        handle.host_deadline = None
        self._watched.pop(handle, None)

    def tick_in(self, delay_s: float) -> None:
        """Call `tick` after `delay_s` at the latest."""
        self._next_tick = min(self._next_tick, time.monotonic() + delay_s)
        if self._next_tick < self.next_wake:
            self.wake()

    def _run(self) -> None:
        """Until it is stopped. If anything else ends it, all that nobody would watch any more ends with it."""
        try:
            self._look_around()
        except BaseException:
            self.failed = True
            self._leave(monitor.lost("the supervisor's housekeeper failed"))
            raise
        self._leave(monitor.closed())

    def _look_around(self) -> None:
        wake = self._wake
        while not self._stop:
            now = time.monotonic()
            if now >= self._next_tick:
                self._next_tick = now + TICK_S
                self._safely(self._tick)
            self.next_wake = math.inf  # whoever adds a deadline while we look must wake us
            self.next_wake = min(self._next_tick, self._end_overdue(now))
            timeout = max(0.0, self.next_wake - time.monotonic())
            events = self._poll.poll(timeout * 1000)
            for fd, _ in events:
                if fd == wake:
                    os.eventfd_read(wake)
                else:
                    self._safely(functools.partial(self._receive, fd))
            self._clean_up()

    def later(self, action: Callable[[], Any]) -> None:
        """For finalisers: run `action` in the housekeeper's thread; at once if that has stopped. Takes no lock."""
        if self.stopped:
            action()
        else:
            self._abandoned.append(action)

    def _clean_up(self) -> None:
        while self._abandoned:
            self._safely(self._abandoned.popleft())

    def _leave(self, verdict: WasmError) -> None:
        """Kill every child, end the fork server, and close what is ours. Whoever is in an operation closes the rest."""
        with self._lock:
            servers = list(self._fork_servers.values())
            self._fork_servers.clear()
            wake, self._wake = self._wake, -1
        for handle in list(self.handles):
            handle.condemn(verdict)
        for server in servers:
            self._safely(server.leave)
        for handle in list(self.handles):
            handle.release_when_idle()
        self.stopped = True
        self._clean_up()
        os.close(wake)
        running.discard(self)

    def _receive(self, fd: int) -> None:
        with self._lock:
            server = self._fork_servers.get(fd)
            if server is None:
                return
            server.receive()
            if server.gone:
                self._poll.unregister(fd)
                del self._fork_servers[fd]
                server.dispose()

    def _end_overdue(self, now: float) -> float:
        """Judge the workers whose thread is in a host function; when the next one will be overdue."""
        due = now + 3600.0
        for handle in list(self._watched):
            deadline = handle.host_deadline
            if deadline is None or (handle.awaited and handle.has_answered()):
                continue
            watch = handle.watch
            verdict = None if watch is None else monitor.over(now, handle.read_resident(), watch)
            if verdict is not None and not (verdict.cause is Cause.WALL and now < deadline):
                handle.condemn(verdict)
                self._watched.pop(handle, None)
            else:
                due = min(due, deadline)
        return due

    def _safely(self, action: Callable[[], Any]) -> None:
        """One failing duty must not end the others: this thread is what keeps every worker bounded."""
        try:
            action()
        except Exception:
            import logging  # takes 6 ms, which nobody who is told nothing need spend

            logging.getLogger("pdsandbox.housekeeper").exception("the housekeeper failed at one of its duties")


#: Those whose thread runs; the exit hook stops them, also when their supervisor was dropped a moment ago.
running: set[Housekeeper] = set()


@atexit.register
def _stop_running() -> None:
    for housekeeper in list(running):
        if housekeeper.generation == generation.now:
            housekeeper.stop()
