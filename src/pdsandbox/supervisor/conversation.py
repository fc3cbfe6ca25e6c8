"""What the supervisor says to one worker. What it makes of the answers is in `answers`. For whoever holds the turn.

Every operation marks the worker busy before its first byte is written and idle after a whole valid reply; whoever
gives the turn back kills a worker that is still busy. A reply that is not legal, not whole, or makes no sense is a
verdict. Host functions run here, in the thread of the call; what they raise stays here.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

from ..callbacks import Callback
from ..calls import FuelMeter
from ..errors import CallError, Cause, CompileError, InstantiationError, MemoryAccessError
from ..externs import FuncType
from ..limits import Limits
from ..platform import os_
from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..slots import SLOT_BYTES
from ..values import WasmVal
from . import monitor
from .answers import Answers
from .calling import CLOSE_S, FIELDS, Cores, Export
from .channel import INTERRUPT_GRACE_S, SPIN_S
from .housekeeper import Housekeeper
from .memory import RemoteMemory
from .serving import Serving
from .sharing import Place

_FRAME_SLACK: Final = 64 << 10  # headers, and the slots of one host call (at most 1,000 of 16 bytes)
# How long ago a worker was looked at does not count while it slept; the housekeeper looks at those that sleep longer.
IDLE_S: Final = 0.25
# From a call that the GIL is taken from to one of the thread that gets it: that has to wake up.
CROWD_S: Final = 300e-6
# A worker spins for 50 us after an answer.
AWAKE_S: Final = 60e-6
# A wake-up takes 40 to 80 us.
WAKE_S: Final = 150e-6
# A sample of resident memory takes 4 us: at most 0.4 % of the time.
LOOK_S: Final = 1e-3
_CALL: Final = m.CALL
_RESULT: Final = m.RESULT
_read: Final = os_.read_raw
_write: Final = os_.write_raw
_WHERE: Final = m.WHERE
_SPIN: Final = m.SPIN
_FREE: Final = m.FREE
_NOWHERE: Final = (0, 0)


class Conversation(Answers):
    """See the module's text."""

    def __init__(
        self,
        place: Place,
        callbacks: list[Callback],
        *,
        limits: Limits,
        fuel: FuelMeter,
        housekeeper: Housekeeper,
        cores: Cores,
        interruptible: bool,
        first: Mapping[str, Export] = {},
    ) -> None:
        self.place = place
        channel = place.worker.channel
        self.handle = channel.handle
        self.instance = place.number = channel.instances
        channel.instances += 1
        self.first = channel.exports  # the number of the first in `first`; the others follow
        self._interruptible = interruptible
        self.fuel = fuel
        self.closed = False  # to be used no more, whatever becomes of the worker
        self._answered_at = -math.inf  # when the last call was answered, or shortly before
        self._flags = 0  # of the last call
        self._looked_at = -math.inf
        self._wall_s: float | None = -1.0  # of the last call, in microseconds:
        self.wall_us = 0
        self._calm_until = -math.inf  # until then a call with this limit needs no look and no more CPU time
        #: Those that the worker has numbered, and whose arguments fit into a message.
        self.exports = {
            name: known.numbered(self.first + known.number) if self.first else known
            for name, known in first.items()
            if known.params.nbytes <= limits.message_bytes
        }
        channel.exports += len(first)
        self.turn = channel.handle.turn
        self.memory = RemoteMemory(channel, self.instance, limits.memory_bytes)
        self.memory.look = self.look
        self.serving = Serving(channel, callbacks, self.memory, self.turn, limits, housekeeper, self.look)
        self._channel = channel
        self._limits = limits
        self._cores, self._computing, self._most = cores, cores.computing, cores.most
        channel.computing = cores.computing
        self._answered_soon = False  # whether the last answer came while we span: then the worker is awake
        channel.cap = max(m.SMALL_CAP, limits.message_bytes) + _FRAME_SLACK

    def begin(self, started: float, wall_s: float | None, *, call: bool = False) -> monitor.Watch:
        """An operation starts (its time counts from `started`): from here on, leaving means killing.

        `call`: it is one that runs guest code in an instance that stands, so that it can be interrupted.
        """
        self.prepare(started, wall_s)
        watch = self.watch(started, wall_s, call=call)
        self.busy = True
        return watch

    def prepare(self, started: float, wall_s: float | None) -> None:
        """What an operation needs now and then: CPU time allowed, resident memory looked at."""
        handle = self.handle
        if wall_s is None or started + 1.5 * wall_s > handle.cpu_until:
            handle.allow_cpu(started, wall_s)
        if started - self._looked_at > LOOK_S:
            self._look(started, monitor.Watch(wall_s, math.inf, self._limits.rss_bytes))
        self._wall_s, self.wall_us = wall_s, _micros(wall_s)
        self._calm_until = min(self._looked_at + LOOK_S, handle.cpu_until - 1.5 * (wall_s or 0.0))

    def watch(self, started: float, wall_s: float | None, *, call: bool = False) -> monitor.Watch:
        """From now on somebody may have to wait: the limits of the operation that began at `started`."""
        deadline = math.inf if wall_s is None else started + wall_s
        watch = monitor.Watch(wall_s, deadline, self._limits.rss_bytes, call and self._interruptible)
        self._channel.interrupted = False
        self.handle.watch = watch
        self.serving.begin()
        return watch

    def look(self, now: float, watch: monitor.Watch) -> None:
        """Judge the worker between two messages: calls, and host calls, that follow closely are answered before anybody
        waits, and it is waiting that judges."""
        if now - self._looked_at > LOOK_S:
            self._look(now, watch)

    def _look(self, now: float, watch: monitor.Watch) -> None:
        """A guest that can be interrupted at its deadline is left to that; for as long as that takes, and no longer:
        while its worker talks on and on, nobody waits, and it is waiting that interrupts."""
        self._looked_at = now
        resident = 0 if watch.rss_bytes is None else self.handle.read_resident()
        verdict = monitor.over(now, resident, watch)
        patience = INTERRUPT_GRACE_S if watch.interruptible else 0.0
        if verdict is not None and not (verdict.cause is Cause.WALL and now < watch.deadline + patience):
            raise self.handle.condemn(verdict)

    # --- loading ---

    def await_loaded(self, watch: monitor.Watch) -> None:
        """LOADED, with whatever the start function asks for in between."""
        budget = self.fuel.begin()
        kind, payload = self.serving.converse(*self._channel.receive(watch), watch, spin=False)
        if kind == m.LOADED:
            loaded = self._channel.decode(m.Loaded, payload)
            self._settle(loaded.fuel, budget)
            self.memory.where = loaded.base, loaded.size
            self.busy = False
            self._answered_at = time.monotonic()
            return
        error = self._failure(kind, payload, budget, m.Failure.OF_LOAD)
        if isinstance(error, CompileError):  # our own artifact cannot be loaded, here and now
            raise InstantiationError(error.message, cause=Cause.HOST)
        if isinstance(error, CallError | MemoryAccessError):
            wrapped = InstantiationError(f"start function: {error.message}", cause=error.cause, limit=error.limit)
            raise wrapped from (error.__cause__ or error)
        raise error

    # --- operations ---

    def request_flags(self, started: float, wall_s: float | None) -> int:
        """The flags of a call that begins now, on an event loop, and what it needs now and then: see `prepare`."""
        if wall_s != self._wall_s or started > self._calm_until:
            self.prepare(started, wall_s)
        self._flags = self._cores.flags(started - self._answered_at) | self.memory.flag
        return self._flags

    def answered(self) -> None:
        """A whole valid reply has come."""
        self.handle.busy = None
        self._answered_at = time.monotonic()

    def export(self, name: str, type_: FuncType) -> Export:
        """An export that the worker does not know yet: its first call says RESOLVE, and calls without waiting."""
        return Export(self._channel.exports, type_, name)

    def call(
        self, export: Export, args: Any, started: float, wall_s: float | None, fuel: int | None, plain: bool
    ) -> Any:
        """One call, begun at `started`: a list of WasmVals, or if `plain` what `func` returns.

        While calls follow each other closely, it is one write, a few reads and one unpacking. Whatever else happens
        goes on in `_finish`.
        """
        channel, handle, meter, memory = self._channel, self.handle, self.fuel, self.memory
        if wall_s != self._wall_s:
            self.prepare(started, wall_s)
        unshared = meter.plain if fuel is None else None
        budget = meter.begin(fuel) if unshared is None else unshared
        gap = started - self._answered_at
        cores = self._cores
        free = len(self._computing) < self._most or cores.free(started)
        spin = free and gap < AWAKE_S
        if free and not spin and self._answered_at < cores.called_at > started - CROWD_S:
            # Other threads called until just now, and we have the GIL from one of them: it is worth more than a core.
            spin, self._answered_soon = True, False
        cores.called_at = started
        self._flags = flags = memory.flag | (0 if not free else _SPIN | _FREE if spin or gap < CLOSE_S else _FREE)
        packed, failure = False, None
        out, nbytes, head = channel.out, export.request_bytes, export.request_payload
        try:
            if channel.held or export.unresolved is not None or nbytes > len(out):
                raise TypeError
            raw = args if plain and export.integers else export.raw(args)
            export.pack(out, 0, head, _CALL, export.number, flags, budget, self.wall_us, *raw)
            packed = True
        except Exception as exc:
            failure = None if isinstance(exc, struct.error | TypeError) else exc
        if not packed:
            # Wrong arguments, whatever they raise; a first call, or a very long one. What this ends in is not
            # raised while that is handled: it would be chained to it.
            data = export.params.encode(args)
            if failure is not None:
                raise failure  # a signal handler's
            sent = self._send_at_length(export, data, flags, budget, started, wall_s)
            return self._finish(export, budget, sent, plain=plain)
        handle.busy = self
        # What follows is `Channel.send` and `Channel.receive` for a worker that is there and answers soon. The GIL is
        # kept: giving it up for every read would make every other thread's call wait for ours.
        reading = channel.reading
        done = _write(channel.writing, channel.out_at, export.request_size)
        # The worker is at work from here on, so this costs nothing.
        if not spin:
            # While it slept it did nothing that a look would show.
            if gap < IDLE_S:
                self._calm_until += gap
            # It was asleep, and most likely wakes up on this very core: it need not wait until we sleep.
            os_.give_way()
            # It may have answered meanwhile: then it did not sleep until now.
            self._answered_at = time.monotonic()
        else:
            self._answered_at = started
        if started > self._calm_until:
            self.prepare(started, wall_s)
        got = _read(*reading)
        watch: monitor.Watch | None = None
        if got < 0 and done == nbytes:
            if spin and self._answered_soon:
                for _ in channel.between.quick:
                    got = _read(*reading)
                    if got >= 0:
                        break
            if got < 0 and spin:
                # One that may have fallen asleep meanwhile is worth waiting for once: the next answer is soon.
                spin_s = SPIN_S if self._answered_soon else WAKE_S
                got = channel.spin(*reading, time.monotonic() + spin_s)
                if not self._answered_soon:
                    self._answered_at = time.monotonic()
                    self._answered_soon = got >= 0
            if got < 0:
                self._answered_soon = False
                watch = self.watch(started, wall_s, call=True)
                channel.wait_reply(watch)
                got = _read(*reading)
                self._answered_at = time.monotonic()
        if got == export.reply_bytes and not channel.interrupted:
            fields = export.unpack(channel.view)
            if fields[0] == export.reply_payload and fields[1] == _RESULT and fields[2] <= budget and done == nbytes:
                if unshared is None:
                    meter.settle(fields[2])
                else:
                    meter.used += fields[2]
                memory.where = fields[3:FIELDS] if flags & _WHERE else _NOWHERE
                handle.busy = None
                if export.one is not None:
                    if plain:
                        return fields[FIELDS] if export.plain_one is None else export.plain_one(fields[FIELDS])
                    return [export.one(fields[FIELDS])]
                return export.results.plain(fields[FIELDS:]) if plain else export.results.make(fields[FIELDS:])
        if watch is None:
            watch = self.watch(started, wall_s, call=True)
        channel.resume(m.CALL, nbytes, done, got, watch)
        return self._finish(export, budget, watch, plain=plain)

    def _send_at_length(
        self, export: Export, data: bytes, flags: int, budget: int, started: float, wall_s: float | None
    ) -> monitor.Watch:
        watch = self.watch(started, wall_s, call=True)
        self.busy = True
        head = m.CALL_LAYOUT.pack(export.number, flags, budget, self.wall_us)
        self._send(export, m.CALL, b"".join((export.call_head, head, data)), watch)
        return watch

    def _finish(self, export: Export, budget: int, watch: monitor.Watch, *, plain: bool) -> Any:
        """Wait for the reply to a CALL, serving host calls meanwhile."""
        channel = self._channel
        kind, payload = channel.receive(watch)
        if kind in m.ASIDES:
            kind, payload = self.serving.converse(kind, payload, watch, spin=bool(self._flags & _FREE))
        return self.conclude(export, budget, kind, payload, watch, plain=plain)

    def _send(self, export: Export, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """`frame`, in one write with RESOLVE if the worker does not know the export yet."""
        resolve = self.resolving(export)
        if resolve is None:
            self._channel.send(kind, frame, watch)
            return
        self._channel.send_two(m.RESOLVE, resolve, kind, frame, watch)
        self.resolved(export)

    def resolving(self, export: Export) -> bytes | None:
        """RESOLVE, to be sent along with the first call of an export; then `resolved`."""
        if export.unresolved is None:
            return None
        return m.Resolve(export.type, export.unresolved.encode("utf-8"), export.number, self.instance).frame()

    def resolved(self, export: Export) -> None:
        """The worker was told."""
        if export.unresolved is not None:
            self._channel.exports += 1
            self.exports[export.unresolved] = export
            export.unresolved = None

    def batch(
        self,
        export: Export,
        data: bytes | bytearray,
        rows: int,
        results: list[list[WasmVal]],
        budget: int,
        started: float,
        watch: monitor.Watch,
    ) -> int:
        """One CALL_MANY of `rows` rows in `data`; appends their results and returns the fuel used."""
        channel = self._channel
        frame = self.batch_frame(export, data, rows, budget, started, watch, more=bool(results))
        self._send(export, m.CALL_MANY, frame, watch)
        spin = bool(self._flags & _FREE)
        kind, payload = self.serving.converse(*channel.receive(watch, spin=spin), watch, spin=spin)
        reply = self.batch_results(export, kind, payload, rows, results, budget)
        if channel.interrupted or reply.failed:
            if not reply.failed:
                raise self.handle.condemn(monitor.wall_exceeded(watch.wall_s))
            raise self.batch_error(*channel.receive(watch), results, watch)
        return int(reply.fuel)

    def batch_frame(
        self,
        export: Export,
        data: bytes | bytearray,
        rows: int,
        budget: int,
        started: float,
        watch: monitor.Watch,
        *,
        more: bool,
    ) -> bytes:
        """The CALL_MANY of `batch`. `more`: it is not the first."""
        flags = self._flags = self._cores.flags(started - self._answered_at)
        flags |= self.memory.flag | (m.CONTINUED if more else 0)
        width = export.stride // SLOT_BYTES
        head = m.CALL_MANY_LAYOUT.pack(export.number, flags, budget, _micros(watch.wall_s), rows, width)
        return b"".join((HEADER.pack(len(head) + len(data), m.CALL_MANY), head, data))


def _micros(wall_s: float | None) -> int:
    """For the worker's own timer; 0: none."""
    return 0 if wall_s is None else max(1, int(wall_s * 1e6))
