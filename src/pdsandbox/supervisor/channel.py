"""The supervisor's end of one worker's pipes: sends a frame, waits for the next one, and judges while it waits.

Only the holder of the worker's turn uses it. Every read and write has the operation's deadline; between polls the
worker's resident memory is sampled. A frame over the cap, bytes beyond the frame that is due, end of file, or a
message that is not legal now is a verdict: `Handle.condemn`, never a resynchronisation. EINTR: a signal handler that
raises (KeyboardInterrupt) leaves through here, and whoever holds the turn kills the worker. EAGAIN: poll again.
A frame may arrive in pieces, and two frames in one read; what is over stays in `_frames` for the next call.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import time
from dataclasses import replace
from typing import Any, Final

from .. import cargs
from ..errors import RssExceeded, WasmError
from ..platform import os_
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.frames import HEADER, HEADER_BYTES, FrameReader, parse_header
from ..protocol.orders import Orders
from . import monitor
from .handle import Handle

BUFFER_BYTES: Final = 8 << 10
# What a pipe holds at once (pipe(7)).
PIPE_BYTES: Final = 64 << 10
# Requests of most signatures fit; longer ones are sent piece by piece.
OUT_BYTES: Final = 1 << 10
# Longer than a fast answer takes (6 us for a warm call), shorter than the wake-up that is saved (some 50).
SPIN_S: Final = 40e-6
# Most answers come within this: before, nothing is looked at.
SOON_S: Final = 0.0005
# Who waits for longer waits for a worker that computes. Not for less: where others spin, a worker that has little to do
# waits for a core of its own for as long as the kernel lets them run, some 3 ms.
COMPUTES_S: Final = 0.004
# A process that exits closes its pipes last, some microseconds before it has ended; one that only closes them breaks
# the protocol.
END_GRACE_S: Final = 1.0
LEAST_GRACE_S: Final = 0.2
# A guest checks for an interrupt at every loop and call, within microseconds; a host function in the worker, or one
# bulk memory operation, may take longer, and is killed.
INTERRUPT_GRACE_S: Final = 0.1
# A reply that has begun at the deadline, as that of a guest that was interrupted then, is heard out for so long.
LATE_S: Final = 0.1


class Channel:
    """See the module's text.

    cap          the largest payload to accept, set by each operation
    computing    where those are noted that take longer; shared by a host
    out          a buffer to make a request in
    view         the buffer that replies are read into
    reading, writing, out_at
                 for who does without `send` and `receive`: arguments of `os_.read_raw` and `os_.write_raw`, made once
    between, in_call
                 who spins for the reply to a call, and inside one: each learns what pays there, and that differs
    frames       what was read and is not whole yet, or not given out
    instances, exports
                 numbers that are taken: of instances in this worker, and of exports
    held         whether bytes were read that `receive` has not given out yet
    interrupted  whether the guest was asked to stop at this operation's deadline; the holder of the turn resets it
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.orders = Orders()
        self.cap = m.SMALL_CAP
        self._block: Any = ctypes.create_string_buffer(BUFFER_BYTES)
        self.view = memoryview(self._block).cast("B")
        self.reading = (
            cargs.c_int(handle.ends.replies),
            cargs.pointer(ctypes.addressof(self._block)),
            cargs.size(BUFFER_BYTES),
        )
        self.writing = cargs.c_int(handle.ends.requests)
        self.out = memoryview(b"")
        self.out_at = cargs.pointer(0)
        self.reserve(OUT_BYTES)
        self.frames = FrameReader(m.SMALL_CAP)
        self._poll = select.poll()
        self._poll.register(handle.ends.replies, select.POLLIN)
        self._polls_pidfd = False
        self._last_words = select.poll()
        self._last_words.register(handle.ends.replies, select.POLLIN)
        self._replies = handle.ends.replies
        self._requests = handle.ends.requests
        self.between, self.in_call = os_.Spinner(handle.part), os_.Spinner(handle.part)
        self.computing: set[Handle] = set()
        self.instances = self.exports = 0
        self.held = False
        self.interrupted = False

    def reserve(self, size: int) -> None:
        """Room for at least `size` bytes in `out`."""
        if size > len(self.out):
            block: Any = ctypes.create_string_buffer(size)
            self.out = memoryview(block).cast("B")
            self.out_at = cargs.pointer(ctypes.addressof(block))

    def resume(self, kind: int, frame: memoryview, done: int, got: int, watch: monitor.Watch) -> None:
        """Take over from `warm`, or `Serving`: of the request `frame`, of this `kind`, a first try wrote `done` bytes
        (below zero: none), and a first read put `got` bytes of the answer into `view`. Then `receive`."""
        self.orders.advance(kind)
        if got > 0:
            self.frames.feed(self.view[:got])
            self.held = True
        if done != len(frame):
            self._send_rest(frame[max(done, 0) :], watch)

    # --- sending ---

    def send(self, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """Write one whole frame. Raises the verdict when the deadline passes first."""
        self.orders.advance(kind)
        if self.held and kind not in (m.LOAD, m.HOST_FAIL):
            raise self.broke("it said more than it was asked")
        size = len(frame)
        done = os_.write_nowait(self._requests, frame, size)
        if done != size:
            self._send_rest(memoryview(frame)[max(done, 0) :], watch)

    def send_two(self, first: int, first_frame: bytes, second: int, second_frame: bytes, watch: monitor.Watch) -> None:
        """Two frames in one write."""
        self.orders.advance(first)
        self.send(second, first_frame + second_frame, watch)

    def _send_rest(self, rest: memoryview, watch: monitor.Watch) -> None:
        """The worker is slow to read, or does not: write as it lets us, until the deadline."""
        poll = select.poll()
        poll.register(self._requests, select.POLLOUT)
        if self.handle.pidfd >= 0:
            poll.register(self.handle.pidfd, select.POLLIN)
        while rest:
            try:
                rest = rest[os.write(self._requests, rest[: 1 << 20]) :]
            except BlockingIOError:
                self._wait(poll, self._requests, watch)

    # --- receiving ---

    def receive(self, watch: monitor.Watch, *, spin: bool = False) -> tuple[int, memoryview | bytes]:
        """The next frame, legal in this state, as (kind, payload). The payload is valid until the next call."""
        try:
            kind, payload = self._receive(watch, spin)
            if kind < m.READY:
                raise ProtocolError(f"message kind {kind} is not a worker's to send")
            self.orders.advance(kind, failed=kind == m.RESULTS and failed_batch(payload))
        except ProtocolError as exc:
            raise self.handle.condemn(monitor.broke_protocol(str(exc))) from exc
        return kind, payload

    def _receive(self, watch: monitor.Watch, spin: bool) -> tuple[int, memoryview | bytes]:
        if not self.held:
            read, reading = os_.read_raw, self.reading
            got = read(*reading)
            if got < 0:
                if spin:
                    got = self.in_call.read(*reading, time.monotonic() + SPIN_S)
                if got < 0:
                    self._wait(self._poll, self._replies, watch)
                    got = read(*reading)
            if got >= HEADER_BYTES:
                kind, length = parse_header(self.view, 0, self.cap)
                if got == HEADER_BYTES + length:
                    return kind, self.view[HEADER_BYTES:got]
            if got == 0:
                raise self.ended(watch)
            if got > 0:
                self.frames.feed(self.view[:got])
        found = self._receive_pieces(watch)
        self.held = self.frames.buffered > 0
        return found

    def _receive_pieces(self, watch: monitor.Watch) -> tuple[int, bytes]:
        frames = self.frames
        frames.cap = self.cap
        while True:
            found = frames.next()
            if found is not None:
                return found
            # No more than this frame needs, so that what a worker sends unasked stays in its pipe.
            want = frames.wanted()
            if want > BUFFER_BYTES:
                return self._receive_long(watch)
            into = self.view[:want]
            frames.feed(into[: self._read(into, watch)])

    def _receive_long(self, watch: monitor.Watch) -> tuple[int, bytes]:
        """The rest of the frame that has begun, read to where it stays: each copy of a long one would show."""
        kind, length, begun = self.frames.take_begun()
        payload, address = os_.new_bytes(length)
        os_.copy_bytes(address, begun, len(begun))
        whole, at = memoryview((ctypes.c_char * length).from_address(address)).cast("B"), len(begun)
        try:
            while at < length:
                at += self._read(whole[at:], watch)
        except BaseException:
            self.frames.feed(HEADER.pack(length, kind) + bytes(whole[:at]))  # for `rest`
            raise
        return kind, payload

    def _read(self, into: memoryview, watch: monitor.Watch) -> int:
        """Read some of a frame that has begun; how many bytes."""
        while True:
            try:
                got = os.readv(self._replies, [into])
            except BlockingIOError:
                self._wait(self._poll, self._replies, watch)
                continue
            if not got:
                raise self.ended(watch)
            # While there is always something to read, nobody waits, and it is waiting that judges.
            verdict = monitor.over(time.monotonic() - LATE_S, 0, watch)
            if verdict is not None:
                raise self.handle.condemn(verdict)
            return got

    def ended(self, watch: monitor.Watch) -> WasmError:
        """The worker has closed its pipes, or ended: the verdict."""
        now = time.monotonic()
        # Up to the deadline, but not so short that a process on its way out is taken for one that lives on.
        return self.handle.post_mortem(now, min(END_GRACE_S, max(LEAST_GRACE_S, watch.deadline - now)))

    def rest(self) -> bytes:
        """What a worker that is condemned has said and nobody has heard: what its pipe holds, without waiting."""
        said, left = self.frames.drain(), PIPE_BYTES
        while left > 0:
            try:
                data = os.read(self._replies, left)
            except BlockingIOError:
                break
            if not data:
                break
            said += data
            left -= len(data)
        return said

    def decode(self, cls: type[Any], payload: memoryview | bytes) -> Any:
        """The message of class `cls` in `payload`; the verdict when there is none."""
        try:
            return cls.decode(payload)
        except ProtocolError as exc:
            raise self.broke(str(exc)) from exc

    def broke(self, what: str) -> WasmError:
        """Kill the worker for breaking the protocol; the verdict that stands."""
        return self.handle.condemn(monitor.broke_protocol(what))

    # --- waiting and judging ---

    def wait_reply(self, watch: monitor.Watch) -> None:
        """Until the worker has said something. Raises the verdict on an overrun, or on its end."""
        self._wait(self._poll, self._replies, watch)

    def _wait(self, poll: select.poll, fd: int, watch: monitor.Watch) -> None:
        """Until `fd` is ready. Raises the verdict on an overrun, or on the worker's end."""
        handle = self.handle
        if not self._polls_pidfd and handle.pidfd >= 0 and poll is self._poll:
            # A process that the worker's native code forked may hold its pipes open: then only the pidfd tells.
            poll.register(handle.pidfd, select.POLLIN)
            self._polls_pidfd = True
        try:
            self._wait_and_judge(poll, fd, watch)
        finally:
            self.computing.discard(handle)

    def _wait_and_judge(self, poll: select.poll, fd: int, watch: monitor.Watch) -> None:
        handle, resident, sample_s, begun = self.handle, 0, SOON_S, math.inf
        while True:
            now = time.monotonic()
            begun = min(begun, now)
            verdict = monitor.over(now, resident, watch)
            if isinstance(verdict, RssExceeded):
                raise handle.condemn(verdict)
            left = min(sample_s, max(0.0, watch.deadline - now))
            ready = [number for number, _ in poll.poll(left * 1000)]
            if fd in ready:  # a reply that is there counts, even one that came at the very deadline
                return
            if ready or handle.ended:
                # It may have said its last words after poll looked at the pipe and before it looked at the pidfd.
                if fd == self._replies and self._last_words.poll(0):
                    return
                raise self.ended(watch)
            if verdict is not None:
                if not self.interrupt(watch):
                    raise handle.condemn(verdict)
                watch = replace(watch, deadline=now + INTERRUPT_GRACE_S, interruptible=False)
            # A full pipe would keep what a worker wrote first, and it is its last words that tell.
            handle.drain_stderr()
            if now - begun > COMPUTES_S:
                self.computing.add(handle)
            if watch.rss_bytes is not None:
                resident = handle.read_resident()
            sample_s = monitor.next_sample_s(resident, watch.rss_bytes)

    def interrupt(self, watch: monitor.Watch) -> bool:
        """Ask the guest to stop, where that is offered, once."""
        if not watch.interruptible or self.interrupted:
            return False
        self.interrupted = True
        try:
            os.write(self.handle.ends.socket, b"\0")
        except OSError:
            return False  # it has died, or reads nothing: the verdict stands
        return True


def failed_batch(payload: memoryview | bytes) -> bool:
    """What RESULTS says of itself."""
    return len(payload) >= m.RESULTS_LAYOUT.size and bool(m.RESULTS_LAYOUT.unpack_from(payload, 0)[5])
