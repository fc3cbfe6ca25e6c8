"""One worker (or compiler) as the supervisor sees it: its descriptors, its end, and the verdict on it.

Who owns what. The descriptors are made by `Ends` and closed by `release`, which only the holder of the turn
(whoever is in an operation on this worker) may call, because a closed number may be reused while another thread
still reads from it. The pidfd is different: any thread may kill, so it is guarded by `_lock` and closed under it.
The pid is the fork server's child; the housekeeper delivers what the fork server says (`on_spawned`, `on_refused`,
`on_exited`, `on_lost`).

The first verdict wins: `condemn` records one and kills; later ones get the first. What follows from a kill (end of
file, SIGKILL) is never looked at again.
"""

from __future__ import annotations

import collections
import copy
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..errors import WasmError
from ..platform import os_
from ..protocol import messages as m
from . import inquest, monitor
from .body import Body
from .ends import Ends
from .latch import Latch

if TYPE_CHECKING:
    from .answers import Answers

STDERR_BYTES: Final = 4096
# The fork server reports an end within a millisecond, unless other processes hold every core.
REPORT_S: Final = 10.0
# One drain reads at most this: a worker that floods its standard error must not keep the supervisor busy.
_DRAIN_BYTES: Final = 64 << 10


class Handle(Body):
    """See the module's text.

    ticket         the fork server's name for the child
    turn           held by who uses its pipes
    cpu_s          the RLIMIT_CPU that it starts with; None: none
    out_of_memory  asked when a SIGKILL that was not ours ended it: the verdict, if the kernel did it for its memory
    on_end         told once it has ended, or was refused, and why is known; from any thread
    """

    def __init__(
        self,
        ticket: int,
        role: int,
        ends: Ends,
        owner: object,
        registry: set[Handle],
        *,
        cpu_s: int | None = None,
        out_of_memory: Callable[[], WasmError | None] = lambda: None,
        on_end: Callable[[Handle], object] = lambda _handle: None,
    ) -> None:
        super().__init__(cpu_s)
        self.owner = weakref.ref(owner)  # once that is gone nobody can use this, or end it
        self.ticket = ticket
        self.role = role
        self.ends = ends
        self._registry = registry  # of those that hold descriptors; adding and discarding are atomic
        self.renew_turn()
        #: Whose operation is under way: set before the first byte of a request, None after a whole valid reply.
        self.busy: Answers | None = None
        self._unsaid: collections.deque[bytes] = collections.deque()
        self.watch: monitor.Watch | None = None  # of the operation that runs, for whoever has to judge a death
        self.host_deadline: float | None = None  # set while a host function runs in the thread of the call
        #: The same is set while an event loop waits for an answer; one that is there has only to be read.
        self.awaited = False
        #: What its event loop wants looked after whenever the housekeeper looks, whoever has the turn.
        self.on_look: Callable[[], object] | None = None
        self._verdict: WasmError | None = None
        #: Not `alive`, or something is unsaid: for who asks at every call.
        self.attention = False
        self.exit: tuple[int | None, int | None] | None = None
        self.refused: WasmError | None = None
        self._settled = Latch()  # spawned, refused or lost
        self._ended = Latch()  # exited, refused or lost
        self._released = False
        self._tail = bytearray()
        self._out_of_memory = out_of_memory
        self.used: tuple[int | None, int | None] = (None, None)  #: once it has ended: see `control.Exited`
        self._on_end = on_end
        self._told = False
        #: Seconds of CPU time that it had used when it ended; None before, and when that was lost.
        self.cpu_in_all: float | None = None
        registry.add(self)

    # --- what the fork server says; called by the housekeeper ---

    def on_spawned(self, pid: int, pidfd: int, memory: int, ceiling: int | None) -> None:
        """It runs; `memory` is for sampling it. Both descriptors are ours from now on. `ceiling`: its RLIMIT_DATA."""
        with self._lock:
            self.pid, self.pidfd, self._ceiling = pid, pidfd, ceiling
            released = self._released
            if released:
                os.close(memory)
            else:
                self._memory = memory
            if released or self._verdict is not None:
                os_.pidfd_kill(pidfd)
        self._settled.set()

    def on_refused(self, number: int) -> None:
        self.refused = monitor.refused(number)
        self._finish()

    def on_exited(self, sig: int | None, exit_code: int | None) -> None:
        self.exit = (sig, exit_code)
        self.cpu_in_all = self.cpu_s()
        if sig == signal.SIGKILL and self._verdict is None:
            verdict = self._out_of_memory()  # now: its cgroup goes when the end is acknowledged
            if verdict is not None:
                self._judge(verdict)
        self._finish()

    def on_lost(self, what: str) -> None:
        """The fork server is gone; its children die with it."""
        self._judge(monitor.lost(what))
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os_.pidfd_kill(pidfd)  # for a lost worker that is still on its way out
            os.close(pidfd)
        self._settled.set()
        self._ended.set()
        self.attention = True
        self._conclude()

    def _conclude(self) -> None:
        """Tell of its end, once nobody is in the middle of finding out why."""
        with self._lock:
            due = self._released and self._ended.on and not self._told
            self._told = self._told or due
        if due:
            self._on_end(self)

    # --- verdicts ---

    @property
    def verdict(self) -> WasmError | None:
        """A fresh copy of the first verdict (an exception object belongs to one raise), or None."""
        first = self._verdict
        return None if first is None else copy.copy(first)

    @property
    def alive(self) -> bool:
        """No verdict, and not known to have ended."""
        return self._verdict is None and not self._ended.on

    @property
    def untouched(self) -> bool:
        """No verdict, and its descriptors are still there; it may have ended by itself. Holder of the turn only."""
        return self._verdict is None and not self._released

    def running(self) -> bool:
        """`alive`, and the process has not ended a moment ago either."""
        with self._lock:
            return self.alive and (self.pidfd < 0 or not os_.pidfd_exited(self.pidfd, 0))

    @property
    def ended(self) -> bool:
        return self._ended.on

    def condemn(self, verdict: WasmError) -> WasmError:
        """Record `verdict` unless there is one, kill, and return the one that stands."""
        self._judge(verdict)
        with self._lock:
            if self.pidfd >= 0:
                os_.pidfd_kill(self.pidfd)
        first = self.verdict
        assert first is not None
        return first

    def _judge(self, verdict: WasmError) -> None:
        with self._lock:
            if self._verdict is None:
                if verdict.pid is None:
                    verdict.pid = self.pid
                self._verdict = verdict
                self.attention = True

    def post_mortem(self, now: float, grace_s: float) -> WasmError:
        """The worker closed its pipes or was seen to end: find out how. Holder of the turn only.

        One that lives on with closed pipes is killed after `grace_s`: that breaks the protocol.
        """
        if self._verdict is None and not self._ended.wait(grace_s):
            with self._lock:
                exited = self.pidfd < 0 or os_.pidfd_exited(self.pidfd, 0)
            # One that has ended is only waiting to be reported.
            if not exited or not self._ended.wait(REPORT_S):
                return self.condemn(monitor.broke_protocol("closed its pipes without ending"))
        self.drain_stderr()
        if self._verdict is None:
            if self.refused is not None:
                self._judge(self.refused)
            elif self.exit is not None:
                verdict = inquest.verdict_on(
                    self.exit,
                    self.watch,
                    now,
                    pid=self.pid,
                    age_s=time.monotonic() - self.born,
                    tail=bytes(self._tail),
                    at_ceiling=self.at_ceiling,
                )
                self._judge(verdict)
        first = self.verdict
        assert first is not None
        return first

    # --- waiting ---

    def wait_settled(self, timeout_s: float) -> bool:
        """Until the fork server said whether there is a child."""
        return self._settled.wait(timeout_s)

    def wait_ended(self, timeout_s: float) -> bool:
        """Until the child is known to have ended."""
        return self._ended.wait(timeout_s)

    def when_ended(self, action: Callable[[], object]) -> None:
        """Call `action` once the child is known to have ended, from any thread: see `Latch.then`."""
        self._ended.then(action)

    def forget(self, action: Callable[[], object]) -> None:
        """Take `when_ended` back."""
        self._ended.forget(action)

    # --- whoever finds it idle ---

    def renew_turn(self) -> None:
        """Nobody has the turn. To be called again only when its holder is gone for good without giving it back, as an
        event loop is that was closed, and the worker is condemned."""
        self.turn = threading.RLock()
        self.turn_is_ours: Callable[[], bool] = self.turn._is_owned  # type: ignore[attr-defined] # as Condition does

    def look_when_idle(self, rss_bytes: int | None) -> None:
        """Unless somebody has the turn: judge resident memory, drain standard error, let go of one that has ended.

        One whose owner is gone (torn away by an exception from a signal handler) is ended.
        """
        if self.on_look is not None:
            self.on_look()
        if self.turn.acquire(blocking=False):
            try:
                if self.owner() is None:
                    self.condemn(monitor.abandoned())
                if not self.alive:
                    self.release()
                    return
                self.drain_stderr()
                self.speak()
                resident = 0 if rss_bytes is None else self.read_resident()
                if rss_bytes is not None and resident > rss_bytes:
                    self.condemn(monitor.rss_exceeded(resident, rss_bytes))
            finally:
                self.turn.release()

    def release_when_idle(self) -> None:
        """Release, unless somebody has the turn: then they will, since the worker is condemned."""
        self._when_idle(self.release)

    def speak_when_idle(self) -> None:
        """The same with `speak`."""
        self._when_idle(self.speak)

    def _when_idle(self, action: Callable[[], None]) -> None:
        if self.turn_is_ours():
            return
        try:  # before it is asked for: a signal handler's exception may come right after it was given
            if self.turn.acquire(blocking=False):
                action()
        finally:
            try:  # with nothing before the C call that such an exception could come after
                self.turn.release()
            except RuntimeError:
                pass  # it was never ours

    def say_later(self, frame: bytes) -> None:
        """Any thread: leave word for the worker, short and not to be answered, for when nothing is under way."""
        self._unsaid.append(frame)
        self.attention = True

    # --- holder of the turn only ---

    def speak(self) -> None:
        """If nothing is under way, say what was left for such a moment, as far as the pipe takes it. `attention` is as
        it should be then: whoever sets it does so after there is something to see."""
        self.attention = False
        while self._unsaid and self.busy is None and self.alive and not self._released:
            frame = self._unsaid.popleft()  # first: said twice would be an error, and lost is a little memory
            try:
                os.write(self.ends.requests, frame)  # all of it or nothing: see pipe(7) on PIPE_BUF
            except BlockingIOError:
                self._unsaid.appendleft(frame)
                break
        if self._unsaid or not self.alive:
            self.attention = True

    def starved(self, message: m.Error) -> WasmError | None:
        """Condemn a worker that says that it was refused memory, if it stands at its ceiling."""
        if not monitor.lacks_memory(message):
            return None
        self.read_resident()
        verdict = self.at_ceiling(self.watch)
        return None if verdict is None else self.condemn(verdict)

    def at_ceiling(self, watch: monitor.Watch | None) -> WasmError | None:
        """The verdict on a worker that failed as one does for want of memory: when the last sample stood at
        RLIMIT_DATA."""
        return monitor.at_ceiling(os_.data_of(self._sample), self._ceiling, watch)

    def read_nothing(self, sent: int) -> bool:
        """Whether all `sent` bytes of the last that was said to it are still in the request pipe."""
        return not self._released and os_.unread_bytes(self.ends.requests_read) >= sent

    def has_answered(self) -> bool:
        """Whether something that it wrote waits to be read, or nothing will. A guess: other threads than that of its
        call ask, which may let go of the descriptor meanwhile."""
        try:
            return self._released or os_.unread_bytes(self.ends.replies) > 0
        except OSError:
            return True

    def drain_stderr(self) -> bytes:
        """The last 4 KiB of what the worker wrote to standard error so far."""
        left = _DRAIN_BYTES
        while not self._released and left > 0:
            try:
                data = os.read(self.ends.stderr, 16384)
            except BlockingIOError:
                break
            if not data:
                break
            left -= len(data)
            self._tail += data
            del self._tail[:-STDERR_BYTES]
        return bytes(self._tail)

    def release(self) -> None:
        """Close every descriptor but the pidfd, which goes when the end is known. Twice is allowed; one that was
        interrupted goes on where it was."""
        if self._verdict is None and self._ended.on:
            self.post_mortem(time.monotonic(), 0.0)  # here nobody waits for it, and its last words can still be read
        with self._lock:
            self._released = True
            memory, self._memory = self._memory, -1
        if memory >= 0:
            os.close(memory)
        self.ends.close()
        self._registry.discard(self)
        self._conclude()
