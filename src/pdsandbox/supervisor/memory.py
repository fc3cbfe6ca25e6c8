"""A worker's linear memory: for the user between calls, for a host function during one.

Used by the holder of the turn only, while the worker waits for a message. Where the kernel lets us, it is one copy
between the two processes (process_vm_readv(2), process_vm_writev(2)): the worker said with its last reply where its
guest's memory is, and nothing changes that while it waits. Else the bytes go through the pipes, in pieces of at most
CHUNK_BYTES, whose first message names the whole range, so that it is refused as a whole or not at all. A worker that
lied about the place has its own memory read and written elsewhere, and nobody else's.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import CallError, MemoryAccessError, WasmError
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER
from . import monitor
from .channel import LEAST_GRACE_S, Channel

# One copy holds a lock that whoever kills the worker waits for; this takes it half a millisecond.
PIECE_BYTES: Final = 4 << 20
# By Yama, another user or a security module; by a filter on system calls.
_NOT_ALLOWED: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS)


def _nothing(_now: float, _watch: monitor.Watch) -> None:
    pass


class RemoteMemory:
    """See the module's text."""

    def __init__(self, channel: Channel, instance: int, memory_bytes: int | None) -> None:
        self._channel = channel
        self._instance = instance
        self._most = math.inf if memory_bytes is None else memory_bytes
        #: (address, bytes) in the worker, as it said last; only true while it waits for us. Zeros: it did not say.
        self.where: tuple[int, ...] = (0, 0)
        #: Flag of a CALL: WHERE once anybody has used memory. Finding out costs the worker a third of a microsecond.
        self.flag = 0
        #: Judges the worker, now and then: what is written takes memory of it, and answers come before anybody waits.
        self.look: Callable[[float, monitor.Watch], None] = _nothing

    def read_direct(self, offset: int, length: int, watch: monitor.Watch) -> bytes | None:
        """`length` bytes at `offset` in one copy; None where that is not to be had. The worker takes no part in it."""
        if not self.reaches(offset, length):
            return None
        data, address = os_.new_bytes(length)
        return data if self.copy(address, offset, length, watch) else None

    def read_into_direct(self, offset: int, address: int, length: int, watch: monitor.Watch) -> bool:
        """The same to `address` in this process; whether that was to be had."""
        return self.reaches(offset, length) and self.copy(address, offset, length, watch)

    def write_direct(self, offset: int, data: bytes, watch: monitor.Watch) -> bool:
        """The same for all of `data`."""
        return self.reaches(offset, len(data)) and self.copy(os_.address_of(data), offset, len(data), watch, write=True)

    def reaches(self, offset: int, length: int) -> bool:
        """Whether the range is known to lie in memory; MemoryAccessError when it is known not to."""
        self.flag = m.WHERE
        base, size = self.where
        if not base:
            return False
        if size > self._most:  # room is made here for what is read
            raise self._channel.broke("its memory is larger than it may be")
        if offset + length > size:
            raise MemoryAccessError
        return True

    def copy(self, address: int, offset: int, length: int, watch: monitor.Watch, *, write: bool = False) -> bool:
        """Copy, or say that it is not allowed here. Raises the verdict on a worker that is gone, or lied."""
        handle, remote, done = self._channel.handle, self.where[0] + offset, 0
        try:
            while done < length:
                size = min(PIECE_BYTES, length - done)
                if handle.copy_memory(address + done, remote + done, size, write=write) != size:
                    raise self._broke("its memory ends before where it said", watch)
                done += size
                if done < length:
                    verdict = monitor.over(time.monotonic(), handle.read_resident() if write else 0, watch)
                    if verdict is not None:
                        raise handle.condemn(verdict)
        except OSError as exc:
            if exc.errno in _NOT_ALLOWED:
                return False
            if exc.errno == errno.ESRCH:
                raise self._channel.ended(watch) from None
            raise self._broke("its memory is not where it said", watch) from None
        return True

    def _broke(self, what: str, watch: monitor.Watch) -> WasmError:
        """The verdict on a worker whose memory is not there: one that is killed for want of it loses it first."""
        if self._channel.handle.wait_ended(LEAST_GRACE_S):
            return self._channel.ended(watch)
        return self._channel.broke(what)

    def read(self, offset: int, length: int, watch: monitor.Watch) -> bytes:
        """`length` bytes at `offset`; nothing is allocated here before the worker found the range in bounds."""
        parts: list[bytes] = []
        done = 0
        while True:
            want = min(m.CHUNK_BYTES, length - done)
            ask = m.MemRead(offset + done, want, length - done, self._instance)
            self._channel.send(m.MEM_READ, ask.frame(), watch)
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
            piece = view[done : done + m.CHUNK_BYTES]
            # One copy, not one for the payload and one more for the frame.
            head = m.MemWrite(offset + done, len(data) - done, b"", self._instance).payload()
            frame = b"".join((HEADER.pack(len(head) + len(piece), m.MEM_WRITE), head, piece))
            self._channel.send(m.MEM_WRITE, frame, watch)
            kind, payload = self._receive(watch, first=not done)
            if kind != m.MEM_DONE or payload:
                raise self._channel.broke("MEM_DONE was due")
            done += len(piece)
            if done == len(data):
                return
            self.look(time.monotonic(), watch)

    def grow(self, pages: int, watch: monitor.Watch) -> int:
        """The number of pages before, or -1 when it may not be that large."""
        self._channel.send(m.MEM_GROW, m.MemGrow(pages, self._instance).frame(), watch)
        kind, payload = self._receive(watch, first=True)
        if kind != m.MEM_GROWN:
            raise self._channel.broke("MEM_GROWN was due")
        grown: m.MemGrown = self._channel.decode(m.MemGrown, payload)
        self.where = grown.base, grown.size
        return grown.before

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
    """The guest's memory for a host function (`callbacks.Memory`), over the pipes that its call holds.

    torn    whether an operation was left in the middle (by an exception from a signal handler, which the function may
            catch): nothing more may be said to the worker then
    look    judges the worker, now and then: what is written takes memory of it, and nobody waits meanwhile
    """

    __slots__ = ("_look", "_memory", "_turn", "_watch", "torn")

    def __init__(
        self, memory: RemoteMemory, turn: Any, watch: monitor.Watch, look: Callable[[float, monitor.Watch], None]
    ) -> None:
        self.torn = False
        self._look = look
        self._memory = memory
        self._turn = turn
        self._watch = watch

    def memory_read(self, offset: int, length: int) -> bytes:
        memory, watch = self._mine(), self._watch
        data = memory.read_direct(offset, length, watch)
        if data is None:
            self.torn = True
            try:
                data = memory.read(offset, length, watch)
            except MemoryAccessError:
                self.torn = False  # that was a whole valid reply
                raise
            self.torn = False
        return data

    def memory_write(self, offset: int, data: bytes) -> None:
        memory, watch = self._mine(), self._watch
        self.torn = len(data) > PIECE_BYTES
        try:
            if not memory.write_direct(offset, data, watch):
                self.torn = True
                memory.write(offset, data, watch)
        except MemoryAccessError:
            self.torn = False  # nothing was written
            raise
        self.torn = False
        self._look(time.monotonic(), watch)

    def _mine(self) -> RemoteMemory:
        """The pipes belong to the thread of the call."""
        if not self._turn._is_owned():
            raise CallError("a caller's memory can be used only in the thread that runs the host function")
        if self.torn:
            raise CallError("an operation on the guest's memory was left in the middle")
        return self._memory
