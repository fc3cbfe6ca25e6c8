"""A worker's linear memory over its pipes: for the user between calls, for a host function during one.

Used by the holder of the turn only. A piece is at most CHUNK_BYTES; the first message of an access names its whole
range, so it is refused as a whole or not at all.
"""

from __future__ import annotations

from typing import Any

from ..errors import CallError, MemoryAccessError
from ..protocol import messages as m
from . import monitor
from .channel import Channel


class RemoteMemory:
    """See the module's text."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: (address, bytes) in the worker, as it said last; only true while it waits for us.
        self.where = (0, 0)

    def read(self, offset: int, length: int, watch: monitor.Watch) -> bytes:
        """`length` bytes at `offset`; nothing is allocated here before the worker found the range in bounds."""
        parts: list[bytes] = []
        done = 0
        while True:
            want = min(m.CHUNK_BYTES, length - done)
            self._channel.send(m.MEM_READ, m.MemRead(offset + done, want, length - done).frame(), watch)
            kind, payload = self._receive(watch, first=not done)
            if kind != m.MEM_DATA or len(payload) != want:
                raise self._channel.broke("not the bytes that were asked for")
            parts.append(bytes(payload))
            done += want
            if done == length:
                return b"".join(parts)

    def write(self, offset: int, data: bytes, watch: monitor.Watch) -> None:
        """All of `data` at `offset`, or nothing: the first piece's message names the whole range."""
        view, done = memoryview(data), 0
        while True:
            piece = bytes(view[done : done + m.CHUNK_BYTES])
            self._channel.send(m.MEM_WRITE, m.MemWrite(offset + done, len(data) - done, piece).frame(), watch)
            kind, payload = self._receive(watch, first=not done)
            if kind != m.MEM_DONE or payload:
                raise self._channel.broke("MEM_DONE was due")
            done += len(piece)
            if done == len(data):
                return

    def _receive(self, watch: monitor.Watch, *, first: bool) -> tuple[int, memoryview | bytes]:
        """The answer to one message of an access; only its first can be refused, because that names the whole range."""
        channel = self._channel
        cap, channel.cap = channel.cap, m.CHUNK_BYTES
        try:
            kind, payload = channel.receive(watch, spin=True)
        finally:
            channel.cap = cap
        if kind == m.ERROR:
            if self._channel.decode(m.Error, payload).failure not in m.Failure.OF_MEMORY or not first:
                raise self._channel.broke("a memory access that failed in a way in which none can")
            raise MemoryAccessError
        return kind, payload


class HostMemory:
    """The guest's memory for a host function (`callbacks.Memory`), over the pipes that its call holds."""

    __slots__ = ("_memory", "_turn", "_watch")

    def __init__(self, memory: RemoteMemory, turn: Any, watch: monitor.Watch) -> None:
        self._memory = memory
        self._turn = turn
        self._watch = watch

    def memory_read(self, offset: int, length: int) -> bytes:
        return self._mine().read(offset, length, self._watch)

    def memory_write(self, offset: int, data: bytes) -> None:
        self._mine().write(offset, data, self._watch)

    def _mine(self) -> RemoteMemory:
        """The pipes belong to the thread of the call."""
        if not self._turn._is_owned():
            raise CallError("a caller's memory can be used only in the thread that runs the host function")
        return self._memory
