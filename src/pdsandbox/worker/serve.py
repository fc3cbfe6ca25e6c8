"""What a worker does once a guest stands: one request after the other, until the supervisor leaves.

One thread. It owns the request pipe's read end, the reply pipe's write end and the guests. The number of an export says
which guest's it is; every other request names its instance. A call's slots are worked on where they were received and
the reply is written from there: both have them at the same place. What is asked during a call is `asking`'s.

A warm call stays within `serve`: one read, one C call between setting and reading fuel, one write, every argument of
every C call made beforehand. Whatever is not a whole CALL of an export that is known goes the longer way.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Callable
from typing import Final

from ..errors import WasmError
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER, HEADER_BYTES
from ..runtime.guest import Export, Guest
from ..slots import SLOT_BYTES
from .asking import Asker
from .faults import RemoteFailed, error_message
from .pipes import BUFFER_BYTES, FIRST_SPIN_S, SPIN_S, WAKE_S, Backstop, Leave
from .tenant import Tenant

_CALL_SLOTS: Final = HEADER_BYTES + m.CALL_LAYOUT.size
_BATCH_SLOTS: Final = HEADER_BYTES + m.CALL_MANY_LAYOUT.size
# Whole frames up to their slots. The header's three zero bytes make its kind a number of 32 bits.
_CALL: Final = struct.Struct("<II" + m.CALL_LAYOUT.format[1:])
_RESULT: Final = struct.Struct("<II" + m.RESULT_LAYOUT.format[1:])
# The header as one number, fuel, and nothing of memory.
_RESULT_SHORT: Final = struct.Struct("<QQ16x")
#: What a guest's operation may end in.
ENDINGS: Final = (WasmError, RemoteFailed, MemoryError)


class _Ready:
    """An export, bound to the buffer: how to call it, and what the frames of a call look like."""

    __slots__ = ("call", "reply", "reply_bytes", "reply_head", "reply_payload", "request_bytes", "tenant")

    def __init__(self, tenant: Tenant, export: Export, address: int, view: memoryview) -> None:
        assert export.params is not None
        assert export.results is not None
        self.tenant = tenant
        self.call = tenant.guest.bind(export, address + _CALL_SLOTS)
        self.request_bytes = _CALL_SLOTS + export.params.nbytes
        self.reply_payload = m.RESULT_LAYOUT.size + export.results.nbytes
        self.reply_head = self.reply_payload | m.RESULT << 32
        self.reply_bytes = HEADER_BYTES + self.reply_payload
        self.reply = view[: self.reply_bytes]


class Server(Asker):
    """See the module's text. Made in the fork server, with its buffers; `serve` runs in one fork."""

    def __init__(self) -> None:
        super().__init__()
        self.backstop = Backstop()
        self._tenants: dict[int, Tenant] = {}
        #: Whose turn it is: of its guest is whatever is said next.
        self.tenant: Tenant
        self._guest: Guest
        self._exports: dict[int, tuple[Tenant, Export]] = {}  # by number
        self._ready: dict[int, _Ready] = {}
        self.inbox.moved = self._bind
        #: Called with one more LOAD.
        self.on_load: Callable[[m.Load], None] | None = None

    def admit(self, tenant: Tenant) -> None:
        """Serve this guest, too; it is loaded now."""
        self._tenants[tenant.number] = tenant
        self._turn_to(tenant)

    def _turn_to(self, tenant: Tenant) -> None:
        self.tenant, self._guest = tenant, tenant.guest

    def _drop(self, number: int) -> None:
        """This instance is not used any more, if it ever was: who asked for it may have been torn away first."""
        tenant = self._tenants.pop(number, None)
        if tenant is None:
            return
        for export in tenant.exports:
            del self._exports[export], self._ready[export]
        tenant.close()

    def open(self, requests: int, replies: int) -> None:
        """Serve these pipes."""
        self.inbox.open(requests)
        self.outbox.open(replies)

    # --- the loop ---

    def serve(self) -> None:
        """Until the supervisor leaves (`pipes.Leave`)."""
        try:
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            raise Leave from None

    def _serve(self) -> None:
        inbox, find, backstop, outbox = self.inbox, self._ready.get, self.backstop, self.outbox
        read, write, clock, spin_read = os_.read_raw, os.write, time.monotonic, inbox.spinner.read
        spinner, once = inbox.spinner, range(1)
        out, give_way = outbox.fd, os_.give_way
        unpack, pack, call_kind, result_kind, least = _CALL.unpack_from, _RESULT.pack_into, m.CALL, m.RESULT, _CALL.size
        pack_short = _RESULT_SHORT.pack_into
        tenant: Tenant | None = None
        where, prepare, reset = self._guest.where, self._guest.prepare, self.tenant.reset
        self._pipelines = True
        replied = clock()
        spin_until = replied + FIRST_SPIN_S
        while True:
            fd, at, size, view = inbox.target
            got, spin_s = -1, SPIN_S
            if not inbox.more:
                for _ in spinner.quick if spin_until else once:
                    got = read(fd, at, size)
                    if got >= 0:
                        break
                if got < 0:
                    if spin_until:
                        got = spin_read(fd, at, size, spin_until)
                    if got < 0:
                        backstop.disarm()
                        inbox.wait()
                        got, spin_s = read(fd, at, size), WAKE_S
            kind = length = number = flags = fuel = wall_us = -1
            if got >= least:
                length, kind, number, flags, fuel, wall_us = unpack(view)
            export = find(number)
            if kind == call_kind and export is not None and got == export.request_bytes == length + 8:
                if export.tenant is not tenant:
                    tenant = export.tenant
                    self._turn_to(tenant)
                    where, prepare, reset = tenant.guest.where, tenant.guest.prepare, tenant.reset
                # Had it been long since the last reply, this process would have slept, and the timer be disarmed.
                if wall_us != backstop.wall_us or replied > backstop.good_until:
                    backstop.arm(wall_us, clock())
                self._flags = flags
                if reset is not None:
                    reset()
                try:
                    used = export.call(fuel)
                except ENDINGS as exc:
                    self._fail(exc)
                else:
                    if flags & 4:
                        pack(view, 0, export.reply_payload, result_kind, used, *where())
                    else:
                        pack_short(view, 0, export.reply_head, used)
                    done = write(out, export.reply)
                    if done != export.reply_bytes:
                        outbox.write_rest(export.reply[done:])
                    if not flags & 1:
                        give_way()  # to the supervisor, which this has woken up
                    prepare(fuel)
            else:
                kind, length = inbox.complete(got)
                flags = self._other(kind, length)
                tenant = None  # it may have been another one's turn
            # From here on the supervisor is at work, too.
            replied = clock()
            spin_until = replied + spin_s if flags & 1 else 0.0

    def _other(self, kind: int, length: int) -> int:
        """Any request, the longer way; its flags."""
        payload = self.inbox.view[HEADER_BYTES : HEADER_BYTES + length]
        if kind == m.CALL:
            return self._call(length)
        if kind == m.CALL_MANY:
            return self._call_many(length)
        if kind in (m.MEM_READ, m.MEM_WRITE, m.MEM_GROW):
            self._memory(kind, payload)
        elif kind == m.RESOLVE:
            asked = m.Resolve.decode(payload)  # the call is right behind it
            self.resolve(asked, self._tenants[asked.instance], asked.number)
        elif kind == m.LOAD and self.on_load is not None:
            self._pipelines = False
            self.on_load(m.Load.decode(payload))
            self._pipelines = True
        elif kind == m.DROP:
            self._drop(m.Drop.decode(payload).instance)
        elif kind == m.STREAM_TAKEN and (taken := self._tenants[m.StreamTaken.decode(payload).instance].on_taken):
            taken()
        elif kind != m.HOST_FAIL:  # that one came too late for the call that it was for
            raise SystemExit(f"unexpected message kind {kind}")
        return m.SPIN | m.FREE

    # --- requests ---

    def resolve(self, request: m.Resolve, tenant: Tenant, number: int) -> None:
        """Give one more export its number."""
        export = tenant.guest.resolve(request.name.decode("utf-8"))
        # The buffers are sized by the real type; another one than the compiler found means that it was hostile.
        if export is None or export.type != request.type or export.params is None or export.results is None:
            raise SystemExit("an export is not what the compiler found")
        # Results are written where arguments came: there must be room for the larger of the two.
        self.inbox.reserve(_CALL_SLOTS + export.nslots * SLOT_BYTES)
        self._exports[number] = tenant, export
        tenant.exports.append(number)
        self._ready[number] = _Ready(tenant, export, self.inbox.address, self.inbox.view)

    def _bind(self) -> None:
        """Bind all exports to where the buffer is now."""
        address, view = self.inbox.address, self.inbox.view
        for number, (tenant, export) in self._exports.items():
            self._ready[number] = _Ready(tenant, export, address, view)

    def _call(self, length: int) -> int:
        """One that came in pieces, was the first of its export, or is large."""
        inbox = self.inbox
        number, flags, fuel, wall_us = m.CALL_LAYOUT.unpack_from(inbox.view, HEADER_BYTES)
        export = self._ready[number]
        if HEADER_BYTES + length != export.request_bytes:
            raise SystemExit("a call's slots do not match the export's type")
        self._turn_to(export.tenant)
        self._start(wall_us, flags)
        try:
            used = export.call(fuel)
        except ENDINGS as exc:
            self._fail(exc)
        else:
            _RESULT.pack_into(inbox.view, 0, export.reply_payload, m.RESULT, used, *self._guest.where())
            self.outbox.write_rest(inbox.view[: export.reply_bytes])
        return int(flags)

    def _call_many(self, length: int) -> int:
        inbox = self.inbox
        number, flags, fuel, wall_us, rows, width = m.CALL_MANY_LAYOUT.unpack_from(inbox.view, HEADER_BYTES)
        tenant, export = self._exports[number]
        guest = tenant.guest
        if width != export.nslots or length != m.CALL_MANY_LAYOUT.size + rows * width * SLOT_BYTES:
            raise SystemExit("a batch's slots do not match the export's type")
        self._turn_to(tenant)
        self._start(wall_us, flags)
        self._pipelines = False
        done, exc = guest.call_rows(export, inbox.address + _BATCH_SLOTS, rows, fuel)
        self._pipelines = True
        failure = None
        if exc is not None:
            if not isinstance(exc, ENDINGS):
                raise exc
            failure = error_message(exc, 0, guest.where())
        size = m.RESULTS_LAYOUT.size + done * width * SLOT_BYTES
        HEADER.pack_into(inbox.view, 0, size, m.RESULTS)
        head = (guest.last_fuel, *guest.where(), done, width, failure is not None)
        m.RESULTS_LAYOUT.pack_into(inbox.view, HEADER_BYTES, *head)
        self.outbox.write_rest(inbox.view[: HEADER_BYTES + size])
        if failure is not None:
            self.outbox.write(failure.frame())
        return int(flags)

    def _start(self, wall_us: int, flags: int) -> None:
        now = time.monotonic()
        if wall_us != self.backstop.wall_us or now > self.backstop.good_until:
            self.backstop.arm(wall_us, now)
        self._flags = flags
        if not flags & m.CONTINUED:
            self.tenant.hosts.reset()

    def _fail(self, exc: BaseException) -> None:
        self.outbox.write(error_message(exc, self._guest.last_fuel, self._guest.where()).frame())

    def _memory(self, kind: int, payload: memoryview, running: Guest | None = None) -> None:
        """MEM_READ, MEM_WRITE or MEM_GROW. `running`: the only guest whose memory may be meant."""
        asked: m.MemRead | m.MemWrite | m.MemGrow
        if kind == m.MEM_READ:
            asked = m.MemRead.decode(payload)
        elif kind == m.MEM_GROW:
            asked = m.MemGrow.decode(payload)
        else:
            asked = m.MemWrite.decode(payload[: m.MEM_WRITE_HEAD])
        guest = self._tenants[asked.instance].guest
        if running not in (None, guest):
            raise SystemExit("a host function of one instance asks for another's memory")
        try:
            guest.find_memory()
            if isinstance(asked, m.MemRead):
                self._read_memory(guest, asked)
            elif isinstance(asked, m.MemWrite):
                self._write_memory(guest, asked, payload)
            else:
                self.outbox.write(m.MemGrown(guest.memory_grow(asked.pages), *guest.where()).frame())
        except WasmError:
            self.outbox.write(m.Error(m.Failure.MEMORY).frame())

    def _read_memory(self, guest: Guest, read: m.MemRead) -> None:
        outbox, size = self.outbox, read.length
        guest.memory_check(read.offset, read.total)
        if size <= BUFFER_BYTES:
            outbox.write(m.MemData(guest.memory_read(read.offset, size)).frame())
        else:  # from where it is: each copy of a long one would show
            source = (ctypes.c_char * size).from_address(guest.address(read.offset, size))
            outbox.write(HEADER.pack(size, m.MEM_DATA))
            outbox.write_rest(memoryview(source).cast("B"))

    def _write_memory(self, guest: Guest, write: m.MemWrite, payload: memoryview) -> None:
        size = len(payload) - m.MEM_WRITE_HEAD
        guest.memory_check(write.offset, write.total)
        if size:
            data = ctypes.c_char.from_buffer(payload, m.MEM_WRITE_HEAD)
            guest.memory_write_from(write.offset, ctypes.addressof(data), size)
        self.outbox.write(m.MemDone().frame())
