"""A guest's WASI in a worker: its standard streams lead over the pipes to the supervisor, its directories came from it.

What is captured is sent on, unanswered, until a cap is met; whatever else a stream leads to, the supervisor is asked,
and the guest waits for the answer. Knows nothing of how a worker starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..runtime.guest import Guest
from ..runtime.wasi import link as _link  # noqa: F401 - System needs it, and a worker can import nothing any more
from ..runtime.wasi.system import Granted, Preopen, System
from ..streams import BytesInput, Input, Output, Standard
from .faults import RemoteFailed
from .serve import Server

_STDIN, _STDOUT, _STDERR = range(m.STREAMS)


class Relay:
    """One guest's way to the supervisor."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def tell(self, number: int, data: bytes | memoryview) -> None:
        """The guest has written `data` to a captured stream."""
        self._server.outbox.write(_frame(m.STREAM_OUT, number, data))

    def look(self) -> None:
        """Raise `RemoteFailed` if the guest's call is to end."""
        self._server.look_for_failure()

    def ask(self, kind: int, number: int, data: bytes = b"") -> bytes:
        """What the supervisor answers. OSError with its errno; `RemoteFailed` when the call is to end."""
        self._server.outbox.write(_frame(kind, number, data))
        got, payload = self._server.answer()
        if got == m.HOST_FAIL:
            raise RemoteFailed
        if got != m.STREAM_REPLY:
            raise SystemExit(f"unexpected message kind {got} in answer to a stream's")
        reply = m.StreamReply.decode(payload)
        if reply.number:
            raise OSError(reply.number, os.strerror(reply.number))
        return reply.data

    def set_link_times(
        self, number: int, path: bytes, found: os.stat_result, atime: tuple[int, int], mtime: tuple[int, int]
    ) -> None:
        """A `system.SetLinkTimes`: it takes a system call with a path, which this worker's filter refuses."""
        self.ask(m.LINK_TIMES, number, m.LINK_LAYOUT.pack(found.st_dev, found.st_ino, *atime, *mtime) + path)

    def poll(self, events: Mapping[int, int], patience_ms: int | None) -> dict[int, int]:
        """A `streams.Poll`, for streams by their numbers."""
        patience = m.FOREVER if patience_ms is None else patience_ms
        happened = self.ask(m.STREAM_POLL, patience, bytes([events.get(number, 0) for number in range(m.STREAMS)]))
        return {number: mask for number, mask in enumerate(happened) if mask}


def _frame(kind: int, number: int, data: bytes | memoryview) -> bytes:
    return b"".join((HEADER.pack(m.STREAM_LAYOUT.size + len(data), kind), m.STREAM_LAYOUT.pack(number), data))


class RelayedInput(Input):
    """Standard input from wherever the supervisor takes it."""

    def __init__(self, relay: Relay, spec: m.StreamSpec) -> None:
        self._relay = relay
        self.tty = spec.tty
        self.fd = _STDIN if spec.waits else None

    def read(self, most: int) -> bytes:
        return self._relay.ask(m.STREAM_READ, most)


class RelayedOutput(Output):
    """A stream to wherever the supervisor takes it."""

    def __init__(self, relay: Relay, number: int, spec: m.StreamSpec) -> None:
        self._relay = relay
        self._number = number
        self.tty = spec.tty
        self.fd = number if spec.waits else None

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(view), m.STREAM_BYTES):
            self._relay.ask(m.STREAM_WRITE, self._number, bytes(view[at : at + m.STREAM_BYTES]))


class Captured(Output):
    """A stream that the supervisor keeps: one byte more than its cap is sent, which tells that something is missing."""

    def __init__(self, relay: Relay, number: int, spec: m.StreamSpec) -> None:
        self._relay = relay
        self._number = number
        self._most = spec.most + 1
        self._left = self._most

    def write(self, data: bytes) -> None:
        view = memoryview(data)[: self._left]
        for at in range(0, len(view), m.STREAM_BYTES):
            self._relay.tell(self._number, view[at : at + m.STREAM_BYTES])
        self._left -= len(view)
        self._relay.look()

    def begin_anew(self) -> None:
        """What was sent has been taken."""
        self._left = self._most


def system_of(spec: m.WasiSpec, guest: Guest, server: Server, dirs: Sequence[tuple[int, bool]]) -> System:
    """The guest's WASI. `dirs`: a descriptor for each of its directories, which is the guest's from now on, and whether
    it may write there."""
    relay = Relay(server)
    stdin = spec.streams[_STDIN]
    source = RelayedInput(relay, stdin) if stdin.relayed else BytesInput(stdin.data)
    stdout, stderr = (_output(relay, number, spec.streams[number]) for number in (_STDOUT, _STDERR))
    standard = Standard(source, stdout, stderr, relay.poll)

    def taken() -> None:
        for stream in (stdout, stderr):
            if isinstance(stream, Captured):
                stream.begin_anew()

    server.tenant.on_taken = taken
    opened = [
        Preopen(item.name, fd, writable, item.max_bytes) for item, (fd, writable) in zip(spec.dirs, dirs, strict=True)
    ]
    return System(guest, Granted(spec.args, spec.env, spec.clock, spec.seed), standard, opened, relay.set_link_times)


def _output(relay: Relay, number: int, spec: m.StreamSpec) -> RelayedOutput | Captured:
    return RelayedOutput(relay, number, spec) if spec.relayed else Captured(relay, number, spec)
