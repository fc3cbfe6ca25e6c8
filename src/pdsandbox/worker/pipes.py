"""A worker's two pipe ends and its backstop timer.

The request pipe is read without blocking while a next message is likely to come soon, else with poll; the reply
pipe is written blocking (when the supervisor does not read any more, it is dead or has killed us already). End of
file, on either, means that the supervisor is gone: the process leaves at once. What is not a whole legal frame means
that our own supervisor is broken, and ends the process too: nothing is ever resynchronised.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
from collections.abc import Callable
from typing import Any, Final

from .. import cargs
from ..platform import os_
from ..protocol.frames import HEADER, HEADER_BYTES

# Longer than the supervisor needs between a reply and the next call (some 3 us), shorter than a wake-up (40 to 80).
SPIN_S: Final = 50e-6
# After a call that woke us: the supervisor may have fallen asleep, too, and has to wake up before it calls again.
WAKE_S: Final = 80e-6
# The first call comes after the supervisor has woken up and made its instance.
FIRST_SPIN_S: Final = 300e-6
# Most frames are small, and a fresh page costs 3 us. Grows as needed.
BUFFER_BYTES: Final = 4 << 10
# The timer is a backstop for a supervisor that was stopped: it never fires before the supervisor's own deadline.
GRACE_S: Final = 0.25


class Leave(BaseException):
    """The supervisor is gone: unwind to the top, past every handler, and exit."""


class Inbox:
    """Frames from one non-blocking pipe, each read into one 16-byte-aligned buffer.

    target    descriptor, address and size for `os_.read_raw`, and the buffer itself
    slots_at  where a payload begins, for C
    more      how many bytes of the next frame came with the last
    moved     called when the buffer is another one
    """

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()
        self.view = memoryview(b"")
        self.size = 0
        self.address = 0
        self._end = 0  # where the last frame ended
        self.more = 0
        self.slots_at = cargs.pointer(0)
        self.moved: Callable[[], None] = _nothing
        self.spinner = os_.Spinner()
        self.target: tuple[Any, Any, Any, memoryview] = (None, None, None, self.view)
        self.reserve(BUFFER_BYTES)

    def open(self, fd: int) -> None:
        """Read from `fd`, which is non-blocking, from now on."""
        self._fd = fd
        self._poll.register(fd, select.POLLIN)
        self._aim()

    def share(self, other: Inbox) -> None:
        """Read from the pipe that `other` reads from."""
        self.open(other._fd)

    def reserve(self, size: int) -> None:
        """A buffer of at least `size` bytes; what was read stays at its start."""
        if size <= self.size:
            return
        block: Any = ctypes.create_string_buffer(size + 16)
        address = (ctypes.addressof(block) + 15) & ~15
        start = address - ctypes.addressof(block)
        view = memoryview(block).cast("B")[start : start + size]
        view[: self.size] = self.view
        self._block = block
        self.address = address
        self.view = view
        self.size = size
        self._aim()

    def _aim(self) -> None:
        at, size = cargs.pointer(self.address), cargs.size(self.size)
        self.target = (cargs.c_int(self._fd), at, size, self.view)
        self.slots_at = cargs.pointer(self.address + HEADER_BYTES)
        self.moved()

    def spin(self, until: float) -> int:
        """Try to read until then (time.monotonic): the number of bytes, or -1."""
        return -1 if self.more else self.spinner.read(*self.target[:3], until)

    def wait(self) -> None:
        """Until there is something to read, or nobody left to write it."""
        self._poll.poll()

    def complete(self, got: int) -> tuple[int, int]:
        """(kind, payload length) of the next frame; its bytes are in `view`, the payload from 8 on.

        `got`: what the last read gave; below zero: nothing.
        """
        if self.more:
            return self._next()
        if got < HEADER_BYTES:
            got = self._fill(max(got, 0), HEADER_BYTES, blocked=got < 0)
        return self._rest(got)

    def _next(self) -> tuple[int, int]:
        """The frame that came in the same read as the last one, moved to where slots are aligned."""
        got, self.more = self.more, 0
        self.view[:got] = bytes(self.view[self._end : self._end + got])
        if got < HEADER_BYTES:
            got = self._fill(got, HEADER_BYTES, blocked=False)
        return self._rest(got)

    def _rest(self, got: int) -> tuple[int, int]:
        """With `got` bytes read, at least a header: the whole frame."""
        length, kind = HEADER.unpack_from(self.view, 0)
        end = HEADER_BYTES + length
        if got < end:
            self.reserve(end)
            got = self._fill(got, end, blocked=False)
        self.more, self._end = got - end, end
        return kind, length

    def _fill(self, have: int, want: int, *, blocked: bool) -> int:
        """Read on, blocking, until at least `want` bytes are there. `blocked`: the last read found nothing."""
        while have < want:
            if blocked:
                self._poll.poll()
            try:
                got = os.readv(self._fd, [self.view[have:]])
            except BlockingIOError:
                blocked = True
                continue
            if not got:
                raise Leave
            have += got
        return have


def _nothing() -> None:
    pass


class Outbox:
    """Writes whole frames to the blocking reply pipe, `fd`."""

    def __init__(self) -> None:
        self.fd = -1

    def open(self, fd: int) -> None:
        """Write to `fd`, which was made non-blocking, and blocks from now on."""
        os.set_blocking(fd, True)
        self.fd = fd

    def write(self, frame: bytes) -> None:
        """All of `frame`."""
        self.write_rest(memoryview(frame))

    def write_rest(self, rest: memoryview) -> None:
        """All of `rest`."""
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except (BrokenPipeError, ConnectionResetError):
                raise Leave from None


class Backstop:
    """The kernel timer that ends this process (SIGALRM's default action) when nobody else does.

    Setting it costs about a microsecond, so one setting serves many calls: it is left alone as long as it would fire
    after the call's deadline but not much later.

    wall_us     of the calls that it serves; 0: none has a limit, -1: it is not set
    good_until  the last moment at which such a call may begin (time.monotonic)
    """

    def __init__(self) -> None:
        self.wall_us = -1
        self.good_until = 0.0

    def arm(self, wall_us: int, now: float) -> None:
        """It must fire after `wall_us` from now and before twice that (plus two seconds); with 0, not at all."""
        if not wall_us:
            self.disarm()
            self.wall_us, self.good_until = 0, math.inf
            return
        seconds = wall_us / 1e6
        delay = 1.5 * seconds + 1
        signal.setitimer(signal.ITIMER_REAL, delay)
        self.wall_us = wall_us
        self.good_until = now + delay - seconds - GRACE_S

    def disarm(self) -> None:
        """It must not fire: nothing runs, or nothing has a deadline."""
        if self.wall_us > 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.wall_us = -1
