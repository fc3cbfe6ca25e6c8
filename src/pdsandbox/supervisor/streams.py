"""The supervisor's end of a guest's standard streams: what is captured is kept, the rest led to where the user wants.

Used by the holder of the turn only, in the thread of the call. A descriptor is waited for together with the worker,
within the call's deadline and while its memory is looked at. The worker keeps the same caps: one that passes them
breaks the protocol.
"""

from __future__ import annotations

import errno
import math
import select
import time
from collections.abc import Mapping
from typing import Final, TypeVar

from ..grants import input_of, output_of
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.frames import HEADER_BYTES, parse_header
from ..streams import BytesInput, Input, Output, Recorder, Standard, input_stream, output_stream
from ..wasi import Output as Written
from ..wasi import Wasi
from . import monitor
from .channel import SOON_S, Channel
from .links import Links

# What is sent along with LOAD takes no round trips. It is to fit into the pipe with it, so that nobody waits.
_SENT_ALONG: Final = 32 << 10
_EVENTS: Final = select.POLLIN | select.POLLOUT
_ALWAYS: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL

_Stream = TypeVar("_Stream", Input, Output)


class Waiter:
    """Waits for descriptors on behalf of the worker behind `channel`, under the limits of `watch`."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.watch: monitor.Watch | None = None

    def wait(self, fd: int, event: int) -> None:
        """A `streams.Wait`. Raises the verdict on the worker instead, when there is one."""
        self.poll({fd: event}, None)

    def poll(self, events: Mapping[int, int], patience_ms: int | None) -> dict[int, int]:
        """A `streams.Poll`, which raises as `wait` does."""
        channel, watch = self.channel, self.watch
        assert channel is not None
        assert watch is not None
        handle = channel.handle
        poll = select.poll()
        for fd, mask in events.items():
            poll.register(fd, mask)
        pidfd = handle.pidfd
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
        until = math.inf if patience_ms is None else time.monotonic() + patience_ms / 1000
        resident, sample_s = 0, SOON_S
        while True:
            now = time.monotonic()
            verdict = monitor.over(now, resident, watch)
            if verdict is not None:
                raise handle.condemn(verdict)
            ready = dict(poll.poll(max(0.0, min(sample_s, watch.deadline - now, until - now)) * 1000))
            found = {fd: mask for fd, mask in ready.items() if fd in events}
            if found:
                return found
            if ready or handle.ended:
                raise channel.ended(watch)
            if time.monotonic() >= until:
                return {}
            handle.drain_stderr()
            if watch.rss_bytes is not None:
                resident = handle.read_resident()
            sample_s = monitor.next_sample_s(resident, watch.rss_bytes)


class Streams:
    """See the module's text. Made of a `Wasi` once, for whichever worker is `attach`ed. `links`: see there."""

    def __init__(self, wasi: Wasi, links: Links | None) -> None:
        self.links = links
        self._waiter = waiter = Waiter()
        self._standard = Standard(
            input_stream(input_of(wasi.stdin), waiter.wait),
            output_stream(output_of(wasi.stdout), wasi.stdout_bytes, waiter.wait),
            output_stream(output_of(wasi.stderr), wasi.stderr_bytes, waiter.wait),
            waiter.poll,
        )
        self._all: tuple[Input | Output, ...] = (self._standard.stdin, self._standard.stdout, self._standard.stderr)
        given = wasi.stdin
        self._along = given if isinstance(given, bytes) and len(given) <= _SENT_ALONG else None
        self._got = [0] * m.STREAMS
        self._cut = False
        self._harvested = False
        self._channel: Channel | None = None
        self._instance = 0

    def specs(self) -> tuple[m.StreamSpec, ...]:
        """What the worker is told of them."""
        return tuple([self._spec(stream) for stream in self._all])

    def _spec(self, stream: Input | Output) -> m.StreamSpec:
        if isinstance(stream, Recorder):
            return m.StreamSpec(most=stream.most)
        if isinstance(stream, BytesInput) and self._along is not None:
            return m.StreamSpec(data=self._along)
        return m.StreamSpec(relayed=True, tty=stream.tty, waits=stream.fd is not None)

    def attach(self, channel: Channel, instance: int) -> None:
        """Serve this new instance in a worker: what one said in another worker is forgotten."""
        self._waiter.channel = self._channel = channel
        self._instance = instance
        self._harvested = False
        self.take()

    # --- what the worker says ---

    def keep(self, payload: memoryview | bytes) -> None:
        """STREAM_OUT. ProtocolError."""
        number, data = _split(payload)
        if not 0 < number < m.STREAMS or not isinstance(recorder := self._all[number], Recorder):
            raise ProtocolError("output to a stream that is not captured")
        self._got[number] += len(data)
        if not data or self._got[number] > recorder.most + 1:
            raise ProtocolError("more output than is to be captured")
        recorder.write(data)

    def may_wait(self, kind: int, payload: memoryview | bytes) -> bool:
        """Whether `serve` may have to wait for a descriptor."""
        if kind in (m.STREAM_READ, m.STREAM_WRITE):
            number = _split(payload)[0] if kind == m.STREAM_WRITE else 0
            return number < m.STREAMS and self._all[number].fd is not None
        return kind == m.STREAM_POLL

    def serve(self, kind: int, payload: memoryview | bytes, watch: monitor.Watch) -> m.StreamReply:
        """What becomes of what the guest's WASI asks. Raises ProtocolError, the verdict on the worker,
        and CallError, HOST_FUNCTION, for what the user's own code raised."""
        number, data = _split(payload)
        self._waiter.watch = watch
        try:
            if kind == m.STREAM_WRITE:
                self._relayed(number, Output).write(data)
                return m.StreamReply(0)
            if kind == m.LINK_TIMES:
                if self.links is None:
                    raise ProtocolError("times of a link of a guest without directories")
                self.links.set_times(number, data)
                return m.StreamReply(0)
            if kind == m.STREAM_READ:
                if data or not number:
                    raise ProtocolError("a read that makes no sense")
                return m.StreamReply(0, self._relayed(0, Input).read(min(number, m.STREAM_BYTES)))
            return m.StreamReply(0, self._poll(number, data))
        except OSError as exc:
            return m.StreamReply(exc.errno or errno.EIO)

    def _relayed(self, number: int, cls: type[_Stream]) -> _Stream:
        stream = self._all[number] if number < m.STREAMS else None
        sent = isinstance(stream, Recorder) or (isinstance(stream, BytesInput) and self._along is not None)
        if not isinstance(stream, cls) or sent:
            raise ProtocolError("a stream that leads nowhere")
        return stream

    def _poll(self, patience: int, masks: bytes) -> bytes:
        if len(masks) != m.STREAMS or not any(masks):
            raise ProtocolError("a poll that makes no sense")
        events: dict[int, int] = {}
        fds: list[int | None] = []
        for stream, mask in zip(self._all, masks, strict=True):
            fds.append(stream.fd)
            if mask and (stream.fd is None or mask & ~_EVENTS):
                raise ProtocolError("a poll for what cannot be waited for")
            if mask and stream.fd is not None:
                events[stream.fd] = events.get(stream.fd, 0) | mask
        ready = self._waiter.poll(events, None if patience == m.FOREVER else patience)
        return bytes(
            [
                ready.get(fd, 0) & (mask | _ALWAYS) if mask and fd is not None else 0
                for fd, mask in zip(fds, masks, strict=True)
            ]
        )

    # --- what is left of it ---

    def harvest(self) -> None:
        """The worker has come to its end in the middle of an operation: what it had said of output is still there."""
        if self._harvested or self._channel is None:
            return
        self._harvested = self._cut = True
        rest, at = self._channel.rest(), 0
        try:
            while at + HEADER_BYTES + m.STREAM_LAYOUT.size < len(rest):
                kind, length = parse_header(rest, at, m.STREAM_BYTES + m.STREAM_LAYOUT.size)
                at += HEADER_BYTES
                if kind == m.STREAM_OUT:
                    self.keep(rest[at : at + length])
                at += length
        except ProtocolError:
            pass  # it is dead already, and whatever comes after nonsense is nonsense

    def take(self) -> tuple[Written, bool]:
        """What was captured since the last time, and whether the worker has to be told."""
        out, err, dropped = self._standard.taken()
        any_came = any(self._got)
        self._got = [0] * m.STREAMS
        cut, self._cut = self._cut, False
        return Written(out, err, dropped or cut), any_came

    def last_words(self, *, cut: bool) -> Written:
        """What a worker has written that is no more; `cut`: it was in the middle of something."""
        if cut:
            self.harvest()
        return self.take()[0]

    def tell_taken(self, watch: monitor.Watch) -> None:
        """Let the worker know that `take` has taken something. Raises the verdict on one that does not listen."""
        assert self._channel is not None
        self._channel.send(m.STREAM_TAKEN, m.StreamTaken(self._instance).frame(), watch)


def _split(payload: memoryview | bytes) -> tuple[int, bytes]:
    if not m.STREAM_LAYOUT.size <= len(payload) <= m.STREAM_LAYOUT.size + m.STREAM_BYTES:
        raise ProtocolError("a stream's message of the wrong size")
    (number,) = m.STREAM_LAYOUT.unpack_from(payload)
    return number, bytes(payload[m.STREAM_LAYOUT.size :])
