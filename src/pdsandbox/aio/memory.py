"""A guest's memory between calls, for a task: see `supervisor.memory`, whose rules these are.

A copy that the kernel makes takes a tenth of a millisecond per MiB and is made in the loop's thread; a long one gives
way after each piece. Through the pipes it is messages like any other. Used by the holder of the turn only.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from typing import Any

from ..errors import MemoryAccessError
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..supervisor import monitor
from ..supervisor.memory import PIECE_BYTES, RemoteMemory
from .port import Port

__all__ = ["Memory"]


class Memory:
    """See the module's text."""

    def __init__(self, remote: RemoteMemory, port: Port, number: int) -> None:
        self._remote = remote
        self._port = port
        self._number = number

    async def read(self, offset: int, length: int, watch: monitor.Watch) -> bytes:
        """`length` bytes at `offset`."""
        if self._remote.reaches(offset, length):
            data, address = os_.new_bytes(length)
            if await self._copy(address, offset, length, watch, write=False):
                return data
        parts: list[bytes] = []
        done = 0
        while True:
            want = min(m.CHUNK_BYTES, length - done)
            ask = m.MemRead(offset + done, want, length - done, self._number)
            await self._port.send(m.MEM_READ, ask.frame(), watch)
            kind, payload = await self._receive(watch, first=not done)
            if kind != m.MEM_DATA or len(payload) != want:
                raise self._port.channel.broke("not the bytes that were asked for")
            parts.append(bytes(payload))
            done += want
            if done == length:
                return b"".join(parts)

    async def read_into(self, offset: int, view: memoryview, watch: monitor.Watch) -> None:
        """Fill all of `view`, which is writable and contiguous."""
        size = len(view)
        if self._remote.reaches(offset, size):
            target: Any = (ctypes.c_char * size).from_buffer(view)
            try:
                if await self._copy(ctypes.addressof(target), offset, size, watch, write=False):
                    return
            finally:
                del target  # it holds the view
        view[:] = await self.read(offset, size, watch)

    async def write(self, offset: int, data: bytes, watch: monitor.Watch) -> None:
        """All of `data` at `offset`."""
        length = len(data)
        if self._remote.reaches(offset, length) and await self._copy(
            os_.address_of(data), offset, length, watch, write=True
        ):
            return
        view, done = memoryview(data), 0
        while True:
            piece = view[done : done + m.CHUNK_BYTES]
            head = m.MemWrite(offset + done, length - done, b"", self._number).payload()
            frame = b"".join((HEADER.pack(len(head) + len(piece), m.MEM_WRITE), head, piece))
            await self._port.send(m.MEM_WRITE, frame, watch)
            kind, payload = await self._receive(watch, first=not done)
            if kind != m.MEM_DONE or payload:
                raise self._port.channel.broke("MEM_DONE was due")
            done += len(piece)
            if done == length:
                return
            self._remote.look(time.monotonic(), watch)

    async def grow(self, pages: int, watch: monitor.Watch) -> int:
        """The number of pages before, or -1 when it may not be that large."""
        await self._port.send(m.MEM_GROW, m.MemGrow(pages, self._number).frame(), watch)
        kind, payload = await self._receive(watch, first=True)
        if kind != m.MEM_GROWN:
            raise self._port.channel.broke("MEM_GROWN was due")
        grown: m.MemGrown = self._port.channel.decode(m.MemGrown, payload)
        self._remote.where = grown.base, grown.size
        return grown.before

    async def _copy(self, address: int, offset: int, length: int, watch: monitor.Watch, *, write: bool) -> bool:
        """Copy piece by piece; whether that is allowed here. Raises the verdict on a worker that is gone, or lied."""
        remote, handle, done = self._remote, self._port.handle, 0
        while True:
            size = min(PIECE_BYTES, length - done)
            if not remote.copy(address + done, offset + done, size, watch, write=write):
                return False
            done += size
            if done == length:
                return True
            verdict = monitor.over(time.monotonic(), handle.read_resident() if write else 0, watch)
            if verdict is not None:
                raise handle.condemn(verdict)
            await asyncio.sleep(0)

    async def _receive(self, watch: monitor.Watch, *, first: bool) -> tuple[int, memoryview | bytes]:
        """The answer to one message of an access; only its first can be refused, because that names the whole range."""
        channel = self._port.channel
        cap, channel.cap = channel.cap, m.CHUNK_BYTES
        try:
            kind, payload = await self._port.receive(watch)
        finally:
            channel.cap = cap
        if kind == m.ERROR:
            if channel.decode(m.Error, payload).failure not in m.Failure.OF_MEMORY or not first:
                raise channel.broke("a memory access that failed in a way in which none can")
            raise MemoryAccessError
        return kind, payload
