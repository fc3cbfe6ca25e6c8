"""A worker (or compiler) that is none: it sits behind the same pipes, in the supervisor's own thread.

Whenever the supervisor is about to wait, the peer does one thing: reads what was sent and plans its answers, or carries
out the next act. So a round needs no process and no luck, split writes happen at exactly these places, and when the
peer has nothing left to do, the deadline may as well come now: silence takes milliseconds, and a deadline that comes
without silence is a hang.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import errno
import os
import select
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fuzz_mutations import MEMORY_AT, MEMORY_BYTES, MUTATIONS, Acts, Dice

from pdsandbox.platform import os_
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.frames import FrameReader
from pdsandbox.supervisor.channel import Channel

#: How long the supervisor waits for a peer that will never do anything again.
DRY_S = 0.002
#: The bytes that fit into a pipe.
PIPE_BYTES = 65536
#: Before it grew, for those who ask it to grow; where it is does not change.
PAGES = 7
MEMORY = bytes(range(256)) * (MEMORY_BYTES // 256)

#: Which of a peer's replies (counted from 0, READY first) is mutated, and how: a mutation or its name.
Plan = Mapping[int, str | Callable[[Dice, bytes], Acts]]


class Honest:
    """What a worker answers. `programs` are, for LOAD and for each call after it, the host calls to make and then the
    frames that end it."""

    def __init__(self, programs: list[list[bytes]]) -> None:
        self._programs = iter(programs)
        self._now: collections.deque[bytes] = collections.deque()
        self._batch = False
        self._waits = False  # for a host function

    def greet(self) -> list[bytes]:
        return [m.Ready().frame()]

    def answer(self, kind: int, message: Any) -> list[bytes]:
        """The frames to send now."""
        if kind in (m.LOAD, m.CALL, m.CALL_MANY):
            self._now = collections.deque(next(self._programs, []))
            self._batch = kind == m.CALL_MANY
            self._waits = False
        elif kind == m.MEM_READ:
            if message.offset + message.total > MEMORY_BYTES:
                return [m.Error(m.Failure.MEMORY).frame()]
            return [m.MemData(MEMORY[message.offset : message.offset + message.length]).frame()]
        elif kind == m.MEM_WRITE:
            outside = message.offset + message.total > MEMORY_BYTES
            return [m.Error(m.Failure.MEMORY).frame() if outside else m.MemDone().frame()]
        elif kind == m.MEM_GROW:
            return [m.MemGrown(PAGES, MEMORY_AT, MEMORY_BYTES).frame()]
        elif kind == m.HOST_FAIL and not self._waits:
            return []  # of a log; it comes too late, all was said
        elif kind in (m.STREAM_TAKEN, m.DROP):
            return []
        elif kind == m.HOST_FAIL:
            self._now.clear()
            failed = m.Error(m.Failure.REMOTE).frame()
            return [m.Results(0, 0, 2, True, b"").frame(), failed] if self._batch else [failed]
        elif kind == m.RESOLVE:
            return []
        said: list[bytes] = []
        while self._now:
            said.append(self._now.popleft())
            self._waits = said[-1][4] in (m.HOST_CALL, m.STREAM_WRITE, m.STREAM_READ, m.STREAM_POLL, m.LINK_TIMES)
            if self._waits:
                break
        return said


class Compiling(Honest):
    """What a compiler answers: `program` to COMPILE."""

    def answer(self, kind: int, message: Any) -> list[bytes]:
        return next(self._programs, [])


class Peer:
    """Behind the pipes of one handle; `greeted`: it says READY before it is spoken to."""

    def __init__(self, honest: Honest, plan: Plan, dice: Dice, *, greeted: bool = False) -> None:
        self._honest = honest
        self._plan = plan
        self._dice = dice
        self._acts: collections.deque[Any] = collections.deque()
        self._frames = FrameReader(1 << 30)
        self.replies: list[bytes] = []  # that an honest one would have sent
        self.said: list[tuple[bytes, int]] = []  # what it wrote, in order, and how much it had heard by then
        self.heard = 0  # messages, but for RESOLVE, which needs no answer
        self.deaf = False
        self.end: tuple[Any, ...] | None = None  # the act that closed its pipes
        self._greeted = greeted
        self._muted = False
        self.copies = False  # whether the kernel lets the supervisor copy its memory
        self.on_interrupt: Callable[[], list[bytes]] = list
        self.quick = dice.one_in(2)  # answers who spins for it, as most workers do

    def attach(self, handle: Any) -> None:
        """Take the child's ends of the handle's pipes, as a fork server would."""
        self._handle = handle
        requests, replies = handle.ends.child[:2]
        self._requests, self._replies = os.dup(requests), os.dup(replies)
        handle.ends.close_child()
        handle.peer = self
        self._queue([*self._honest.greet()])
        while self._greeted and self._acts and self.step():
            pass

    def detach(self) -> None:
        """Close what is left."""
        for fd in (self._requests, self._replies):
            if fd >= 0:
                os.close(fd)
        self._requests = self._replies = -1
        self._acts.clear()

    def copy(self, local: int, remote: int, size: int, *, write: bool) -> int:
        """What `Handle.copy_memory` makes of its memory, without it knowing."""
        if not self.copies:
            raise PermissionError(errno.EPERM, "not permitted")
        at = remote - MEMORY_AT
        if not 0 <= at < MEMORY_BYTES:
            raise OSError(errno.EFAULT, "nothing is there")
        done = min(size, MEMORY_BYTES - at)
        if not write:
            ctypes.memmove(local, MEMORY[at : at + done], done)
        return done

    # --- one step ---

    def step(self) -> bool:
        """Read, or do one act; False when there will never be anything to do again unless the supervisor says more."""
        if self._requests < 0:
            return False
        if not self.deaf and self._read():
            return True
        while self._acts:
            act = self._acts.popleft()
            if act[0] == "write":
                return self._write(act[1])
            self._do(act)
            return True
        return False

    def _read(self) -> bool:
        try:
            data = os.read(self._requests, 1 << 20)
        except BlockingIOError:
            return False
        self._frames.feed(data)
        while (got := self._frames.next()) is not None:
            kind, payload = got
            message = m.decode(kind, payload)  # what a supervisor says is always valid, whatever it was told
            assert kind < m.READY
            self.heard += kind != m.RESOLVE
            self._queue(self._honest.answer(kind, message))
        return bool(data)

    def _queue(self, frames: list[bytes]) -> None:
        for frame in frames:
            name = self._plan.get(len(self.replies), "honest")
            self.replies.append(frame)
            mutation = MUTATIONS[name] if isinstance(name, str) else name
            acts: Acts = mutation(self._dice, frame)
            self._acts += acts if not self._muted else []
            self._muted |= ("mute",) in acts

    def _write(self, data: bytes) -> bool:
        if self._replies < 0 or not data:
            return True
        try:
            done = os.write(self._replies, data)
        except BlockingIOError:  # full: the supervisor does not read it, and waits for something else
            self._acts.appendleft(("write", data))
            return False
        self.said.append((data[:done], self.heard))
        if done < len(data):
            self._acts.appendleft(("write", data[done:]))
        return True

    def _do(self, act: Any) -> None:
        match act[0]:
            case "deaf":
                self.deaf = True
            case "mute":
                self._acts.clear()
            case "close" | "die":
                self._acts.clear()
                self.end = act
                os.close(self._replies)
                self._replies = -1
                if act[0] == "die":
                    self._handle.on_exited(act[1], act[2])

    def interrupted(self) -> None:
        """The supervisor asked the guest to stop."""
        self._queue(self.on_interrupt())

    def stream(self) -> bytes:
        """All that it said."""
        return b"".join(data for data, _ in self.said)

    def early(self, at: int, heard: int) -> bool:
        """Whether it said something beyond offset `at` before it had heard `heard` messages."""
        end = 0
        for data, by_then in self.said:
            end += len(data)
            if end > at and by_then < heard:
                return True
        return False


class SteppingSpinner(os_.Spinner):
    """One that a quick peer answers."""

    def __init__(self, channel: SteppedChannel) -> None:
        super().__init__()
        self._channel = weakref.ref(channel)
        self.quick = range(1)  # of reads that the peer knows nothing of

    def read(self, fd: Any, address: Any, size: Any, _until: float) -> int:
        channel = self._channel()
        assert channel is not None
        return channel.step_and_read(fd, address, size)


class SteppedChannel(Channel):
    """A channel whose peer moves only while somebody waits for it."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._peer: Peer = handle.peer
        if self._peer.quick:
            self.between = self.in_call = SteppingSpinner(self)

    def step_and_read(self, fd: Any, address: Any, size: Any) -> int:
        """What a quick peer does while it is spun for, and what comes of that."""
        for _ in self._steps(self._replies):
            pass
        return int(os_.read_raw(fd, address, size))

    def _wait(self, poll: Any, fd: int, watch: Any) -> None:
        for _ in self._steps(fd):
            pass
        if not self._ready(fd) and not self._peer.end:
            watch = dataclasses.replace(watch, deadline=min(watch.deadline, time.monotonic() + DRY_S))
        super()._wait(poll, fd, watch)

    def _steps(self, fd: int) -> Iterator[None]:
        while not self._ready(fd) and self._peer.step():
            yield

    def _ready(self, fd: int) -> bool:
        poll = select.poll()
        poll.register(fd, select.POLLIN if fd == self._replies else select.POLLOUT)
        return bool(poll.poll(0))

    def interrupt(self, watch: Any) -> bool:
        asked = super().interrupt(watch)
        if asked:
            self._peer.interrupted()
            for _ in self._steps(self._replies):
                pass
        return asked
