"""What the supervisor says to one worker. What it makes of the answers is in `answers`. For whoever holds the turn.

Every operation marks the worker busy before its first byte is written and idle after a whole valid reply; whoever
gives the turn back kills a worker that is still busy. A reply that is not legal, not whole, or makes no sense is a
verdict. Host functions run here, in the thread of the call; what they raise stays here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Final

from ..callbacks import Callback
from ..calls import FuelMeter
from ..errors import CallError, Cause, CompileError, InstantiationError, MemoryAccessError
from ..externs import FuncType
from ..limits import Limits
from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..slots import SLOT_BYTES
from ..values import WasmVal
from . import monitor
from .answers import Answers
from .calling import Cores, Export
from .channel import INTERRUPT_GRACE_S
from .housekeeper import Housekeeper
from .memory import RemoteMemory
from .serving import Serving
from .sharing import Place

_FRAME_SLACK: Final = 64 << 10  # headers, and the slots of one host call (at most 1,000 of 16 bytes)
# A sample of resident memory takes 4 us: at most 0.4 % of the time.
LOOK_S: Final = 1e-3


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
        self.answered_at = -math.inf  # when the last call was answered, or shortly before
        self.flags = 0  # of the last call
        self._looked_at = -math.inf
        self.wall_s: float | None = -1.0  # of the last call, in microseconds:
        self.wall_us = 0
        self.calm_until = -math.inf  # until then a call with this limit needs no look and no more CPU time
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
        self.channel = channel
        self._limits = limits
        self.cores = cores
        channel.computing = cores.computing
        self.answered_soon = False  # whether the last answer came while we span: then the worker is awake
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
        self.wall_s, self.wall_us = wall_s, _micros(wall_s)
        self.calm_until = min(self._looked_at + LOOK_S, handle.cpu_until - 1.5 * (wall_s or 0.0))

    def watch(self, started: float, wall_s: float | None, *, call: bool = False) -> monitor.Watch:
        """From now on somebody may have to wait: the limits of the operation that began at `started`."""
        deadline = math.inf if wall_s is None else started + wall_s
        watch = monitor.Watch(wall_s, deadline, self._limits.rss_bytes, call and self._interruptible)
        self.channel.interrupted = False
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
        kind, payload = self.serving.converse(*self.channel.receive(watch), watch, spin=False)
        if kind == m.LOADED:
            loaded = self.channel.decode(m.Loaded, payload)
            self._settle(loaded.fuel, budget)
            self.memory.where = loaded.base, loaded.size
            self.busy = False
            self.answered_at = time.monotonic()
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
        if wall_s != self.wall_s or started > self.calm_until:
            self.prepare(started, wall_s)
        self.flags = self.cores.flags(started - self.answered_at) | self.memory.flag
        return self.flags

    def answered(self) -> None:
        """A whole valid reply has come."""
        self.handle.busy = None
        self.answered_at = time.monotonic()

    def export(self, name: str, type_: FuncType) -> Export:
        """An export that the worker does not know yet: its first call says RESOLVE, and calls without waiting."""
        return Export(self.channel.exports, type_, name)

    def call(
        self,
        export: Export,
        args: Any,
        started: float,
        wall_s: float | None,
        budget: int,
        plain: bool,
        failure: Exception | None = None,
    ) -> Any:
        """A call, begun at `started`, that is a first one, or very long, or `warm` could not make something of its
        arguments: a list of WasmVals, or if `plain` what `func` returns.

        failure  what was raised when they were looked at: a signal handler's, if they are right after all
        """
        if wall_s != self.wall_s or started > self.calm_until:
            self.prepare(started, wall_s)
        data = export.params.encode(args)
        try:
            if failure is not None:
                raise failure
        finally:
            failure = None  # as in `Slots.encode`
        self.flags = self.cores.flags(started - self.answered_at) | self.memory.flag
        watch = self.watch(started, wall_s, call=True)
        self.busy = True
        head = m.CALL_LAYOUT.pack(export.number, self.flags, budget, self.wall_us)
        self._send(export, m.CALL, b"".join((export.call_head, head, data)), watch)
        return self.finish(export, budget, watch, plain=plain)

    def finish(self, export: Export, budget: int, watch: monitor.Watch, *, plain: bool) -> Any:
        """Wait for the reply to a CALL that was sent, serving host calls meanwhile; what it comes to."""
        channel = self.channel
        kind, payload = channel.receive(watch, spin=bool(self.flags & m.SPIN))
        if kind in m.ASIDES:
            kind, payload = self.serving.converse(kind, payload, watch, spin=bool(self.flags & m.FREE))
        return self.conclude(export, budget, kind, payload, watch, plain=plain)

    def _send(self, export: Export, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """`frame`, in one write with RESOLVE if the worker does not know the export yet."""
        resolve = self.resolving(export)
        if resolve is None:
            self.channel.send(kind, frame, watch)
            return
        self.channel.send_two(m.RESOLVE, resolve, kind, frame, watch)
        self.resolved(export)

    def resolving(self, export: Export) -> bytes | None:
        """RESOLVE, to be sent along with the first call of an export; then `resolved`."""
        if export.unresolved is None:
            return None
        return m.Resolve(export.type, export.unresolved.encode("utf-8"), export.number, self.instance).frame()

    def resolved(self, export: Export) -> None:
        """The worker was told."""
        if export.unresolved is not None:
            self.channel.exports += 1
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
        channel = self.channel
        frame = self.batch_frame(export, data, rows, budget, started, watch, more=bool(results))
        self._send(export, m.CALL_MANY, frame, watch)
        spin = bool(self.flags & m.FREE)
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
        flags = self.flags = self.cores.flags(started - self.answered_at)
        flags |= self.memory.flag | (m.CONTINUED if more else 0)
        width = export.stride // SLOT_BYTES
        head = m.CALL_MANY_LAYOUT.pack(export.number, flags, budget, _micros(watch.wall_s), rows, width)
        return b"".join((HEADER.pack(len(head) + len(data), m.CALL_MANY), head, data))


def _micros(wall_s: float | None) -> int:
    """For the worker's own timer; 0: none."""
    return 0 if wall_s is None else max(1, int(wall_s * 1e6))
