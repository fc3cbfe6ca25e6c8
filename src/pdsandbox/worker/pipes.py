"""A worker's two pipe ends and its backstop timer.

The request pipe is read without blocking while a next message is likely to come soon, else with poll; the reply
pipe is written blocking (when the supervisor does not read any more, it is dead or has killed us already). End of
file, on either, means that the supervisor is gone: the process leaves at once. What is not a whole legal frame means
that our own supervisor is broken, and ends the process too: nothing is ever resynchronised.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from ..platform import os_
from ..protocol.frames import HEADER, HEADER_BYTES

# Longer than the supervisor needs between a reply and the next call (some 5 us), shorter than a wake-up (40 to 80).
SPIN_NS: Final = 50_000
# The first call comes after the supervisor has woken up and made its instance.
FIRST_SPIN_NS: Final = 300_000
# A request that came this soon after our last reply would have met a spinning reader, were it not for two wake-ups.
CLOSE_NS: Final = 250_000
# Most frames are small, and a fresh page costs 3 us. Grows as needed.
BUFFER_BYTES: Final = 4 << 10
# The timer is a backstop for a supervisor that was stopped: it never fires before the supervisor's own deadline.
GRACE_S: Final = 0.25


class Leave(BaseException):
    """The supervisor is gone: unwind to the top, past every handler, and exit."""


class Inbox:
    """Frames from one non-blocking pipe, each read into one 16-byte-aligned buffer."""

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()
        self.view = memoryview(b"")
        self.size = 0
        self.address = 0
        self.blocked = False  # whether the last read had to wait for more than its spin
        self._end = 0  # where the last frame ended, and
        self._more = 0  # how many bytes were read beyond it
        self.reserve(BUFFER_BYTES)

    def open(self, fd: int) -> None:
        """Read from `fd`, which is non-blocking, from now on."""
        self._fd = fd
        self._poll.register(fd, select.POLLIN)

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

    def read(self, spin_until_ns: int, idle: Callable[[], None] | None = None) -> tuple[int, int]:
        """(kind, payload length) of the next frame; its bytes are in `view`, the payload from 8 on.

        Spins until `spin_until_ns` (perf_counter_ns; 0: not at all), then calls `idle` and blocks.
        """
        if self._more:
            return self._next()
        fd, address, size = self._fd, self.address, self.size
        read = os_.read_nowait
        got = read(fd, address, size)
        while got < 0 and time.perf_counter_ns() < spin_until_ns:
            os_.yield_core()
            got = read(fd, address, size)
        self.blocked = got < 0
        if got < HEADER_BYTES:
            if got < 0 and idle is not None:
                idle()
            got = self._fill(max(got, 0), HEADER_BYTES, blocked=got < 0)
        return self._rest(got)

    def _next(self) -> tuple[int, int]:
        """The frame that came in the same read as the last one, moved to where slots are aligned."""
        got, self._more = self._more, 0
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
        self._more, self._end = got - end, end
        return kind, length

    def waiting(self) -> bool:
        """Whether something can be read now."""
        return bool(self._poll.poll(0))

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


class Outbox:
    """Writes whole frames to the blocking reply pipe."""

    def __init__(self) -> None:
        self._fd = -1

    def open(self, fd: int) -> None:
        """Write to `fd`, which was made non-blocking, and blocks from now on."""
        os.set_blocking(fd, True)
        self._fd = fd

    def write(self, frame: bytes) -> None:
        """All of `frame`."""
        done = os_.write_nowait(self._fd, frame, len(frame))
        if done != len(frame):
            self._write_rest(memoryview(frame)[max(done, 0) :])

    def write_in_place(self, view: memoryview, address: int, start: int, length: int) -> None:
        """All of `length` bytes from `start` of the buffer `view`, which lies at `address`."""
        done = os_.write_nowait(self._fd, address + start, length)
        if done != length:
            self._write_rest(view[start + max(done, 0) : start + length])

    def _write_rest(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except (BrokenPipeError, ConnectionResetError):
                raise Leave from None


class Backstop:
    """The kernel timer that ends this process (SIGALRM's default action) when nobody else does.

    Setting it costs about a microsecond, so one setting serves many calls: it is left alone as long as it would fire
    after the call's deadline but not much later.
    """

    def __init__(self) -> None:
        self._fires_at = 0.0

    def arm(self, seconds: float) -> None:
        """It must fire after `seconds` from now and before twice that (plus two seconds)."""
        now = time.monotonic()
        if now + seconds + GRACE_S <= self._fires_at <= now + 2 * seconds + 2:
            return
        delay = 1.5 * seconds + 1
        signal.setitimer(signal.ITIMER_REAL, delay)
        self._fires_at = now + delay

    def disarm(self) -> None:
        """It must not fire: nothing runs, or nothing has a deadline."""
        if self._fires_at:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._fires_at = 0.0
