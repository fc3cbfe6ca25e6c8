"""What a worker asks of the supervisor in the middle of a guest's call, and how it hears the answer.

While the guest runs, messages arrive in a second buffer, because the engine will still write the call's results into
the first. The supervisor may read and write the guest's memory before it answers. Knows nothing of requests: `serve`
does.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import Final

from .. import cargs
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER_BYTES
from ..runtime.guest import Guest
from ..runtime.hostcalls import Ask
from .faults import RemoteFailed
from .pipes import SPIN_S, Inbox, Outbox

# Whole frames up to their slots. The header's three zero bytes make its kind a number of 32 bits.
_HOST_CALL: Final = struct.Struct("<II" + m.HOST_CALL_LAYOUT.format[1:])
_HEADER: Final = struct.Struct("<II")
_HOST_SLOTS: Final = HEADER_BYTES + m.HOST_CALL_LAYOUT.size
_NOWHERE: Final = (0, 0)


class Asker:
    """See the module's text. `Server` is one: it says whose guest runs, and serves what is asked of its memory."""

    _guest: Guest

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.outbox = Outbox()
        self._nested: Inbox | None = None
        self._flags = 0  # of the call that runs
        #: Whether `pd_log` waits for no answer. It does while loading, and in a batch, where the row that fails counts.
        self._pipelines = False

    def _memory(self, kind: int, payload: memoryview, running: Guest | None = None) -> None:
        """MEM_READ, MEM_WRITE or MEM_GROW."""
        raise NotImplementedError

    # --- streams (worker.streams) ---

    def answer(self) -> tuple[int, bytes]:
        """(kind, payload) of the answer to what was asked in the middle of a call."""
        inbox = self._inner()
        kind, length = inbox.complete(inbox.spin(time.monotonic() + SPIN_S) if self._flags & m.FREE else -1)
        return kind, bytes(inbox.view[HEADER_BYTES : HEADER_BYTES + length])

    def look_for_failure(self) -> None:
        """`RemoteFailed` if the supervisor has said that an earlier `pd_log` failed."""
        if self._pipelines:
            fd, at, size, _ = self._inner().target
            got = os_.read_raw(fd, at, size)
            if got >= 0:
                self._failed_before(got)

    # --- host calls to the supervisor (hostcalls.Remote) ---

    def _inner(self) -> Inbox:
        """Where messages arrive while the guest runs."""
        if self._nested is None:
            self._nested = Inbox()
            self._nested.share(self.inbox)
        return self._nested

    def bind(self, index: int, nargs: int, nresults: int, *, blobs: bool, answered: bool) -> Ask:
        """See `hostcalls.Remote`."""
        if answered and not blobs:
            return self._bind_plain(index, nargs, nresults)
        inbox, outbox, where = self._inner(), self.outbox, self._guest.where
        request_bytes = _HOST_SLOTS + nargs
        request = ctypes.create_string_buffer(request_bytes)
        frame = memoryview(request).cast("B")
        slots_at = cargs.pointer(ctypes.addressof(request) + _HOST_SLOTS)
        args_size, results_size = cargs.size(nargs), cargs.size(nresults)
        there, pointer = -1, cargs.pointer
        slots = pointer(0)  # at `there`: the engine has them in one place, mostly
        reply_bytes = HEADER_BYTES + nresults
        read, write, copy = os_.read_raw, os.write, os_.copy_raw
        clock, pack, unpack = time.monotonic, _HOST_CALL.pack_into, _HEADER.unpack_from

        def ask(address: int, blobs: tuple[bytes, ...]) -> None:
            nonlocal there, slots
            kind = m.HOST_CALL if answered or not self._pipelines else m.HOST_LOG
            first, second = (*blobs, b"", b"")[:2] if blobs else (b"", b"")
            extra = len(first) + len(second)
            base, nbytes = where() if self._flags & 4 else (0, 0)
            pack(request, 0, request_bytes - 8 + extra, kind, index, nargs, len(first), len(second), base, nbytes)
            if address != there:
                there, slots = address, pointer(address)
            copy(slots_at, slots, args_size)
            if extra:
                outbox.write(b"".join((request, first, second)))
            elif (done := write(outbox.fd, frame)) != request_bytes:
                outbox.write_rest(frame[done:])
            fd, at, size, view = inbox.target
            got = read(fd, at, size)
            if kind == m.HOST_LOG:
                # Nothing is due. What may come is that an earlier one failed.
                if got >= 0:
                    self._failed_before(got)
                return
            if got < 0 and self._flags & 8:
                got = inbox.spinner.read(fd, at, size, clock() + SPIN_S)
            if got == reply_bytes and unpack(view) == (nresults, m.HOST_RETURN):
                if nresults:
                    copy(slots, inbox.slots_at, results_size)
            else:
                self._await_return(got, address, nresults)

        return ask

    def _bind_plain(self, index: int, nargs: int, nresults: int) -> Ask:
        """The same for a function that takes no bytes along, whose request changes but for the slots seldom."""
        inbox, outbox, where = self._inner(), self.outbox, self._guest.where
        request_bytes, reply_bytes = _HOST_SLOTS + nargs, HEADER_BYTES + nresults
        request = ctypes.create_string_buffer(request_bytes)
        frame = memoryview(request).cast("B")
        slots_at = cargs.pointer(ctypes.addressof(request) + _HOST_SLOTS)
        args_size, results_size = cargs.size(nargs), cargs.size(nresults)
        there, pointer = -1, cargs.pointer
        slots = pointer(0)  # at `there`: the engine has them in one place, mostly
        read, write, copy = os_.read_raw, os.write, os_.copy_raw
        clock, unpack, returned = time.monotonic, _HEADER.unpack_from, (nresults, m.HOST_RETURN)
        spinner = inbox.spinner
        head = (request_bytes - HEADER_BYTES, m.HOST_CALL, index, nargs, 0, 0)
        said = (0, 0)
        _HOST_CALL.pack_into(request, 0, *head, *said)

        def ask(address: int, _blobs: tuple[bytes, ...]) -> None:
            nonlocal said, there, slots
            flags = self._flags
            if (place := where() if flags & 4 else _NOWHERE) != said:
                _HOST_CALL.pack_into(request, 0, *head, *place)
                said = place
            if address != there:
                there, slots = address, pointer(address)
            copy(slots_at, slots, args_size)
            done, got = write(outbox.fd, frame), -1
            if done != request_bytes:
                outbox.write_rest(frame[done:])
            fd, at, size, view = inbox.target
            for _ in spinner.quick:
                got = read(fd, at, size)
                if got >= 0:
                    break
            if got < 0 and flags & 8:
                got = spinner.read(fd, at, size, clock() + SPIN_S)
            if got == reply_bytes and unpack(view) == returned:
                if nresults:
                    copy(slots, inbox.slots_at, results_size)
            else:
                self._await_return(got, address, nresults)

        return ask

    def _failed_before(self, got: int) -> None:
        assert self._nested is not None
        kind, _ = self._nested.complete(got)
        if kind != m.HOST_FAIL:
            raise SystemExit(f"unexpected message kind {kind} during a call")
        raise RemoteFailed

    def _await_return(self, got: int, address: int, nresults: int) -> None:
        """The longer way: while its function runs, the supervisor may read and write the guest's memory."""
        inbox = self._nested
        assert inbox is not None
        while True:
            kind, length = inbox.complete(got)
            payload = inbox.view[HEADER_BYTES : HEADER_BYTES + length]
            if kind == m.HOST_RETURN and length == nresults:
                ctypes.memmove(address, bytes(payload), nresults)
                return
            if kind == m.HOST_FAIL:
                raise RemoteFailed
            if kind not in (m.MEM_READ, m.MEM_WRITE):
                raise SystemExit(f"unexpected message kind {kind} during a host call")
            self._memory(kind, payload, self._guest)
            got = -1
            if self._flags & m.FREE:
                got = inbox.spin(time.monotonic() + SPIN_S)
