"""What a worker's replies come to: results, the guest's errors, or the verdict on a worker whose reply makes no sense.

A reply is judged here whoever waited for it, a thread or an event loop. Nothing is sent, and nobody waits.
"""

from __future__ import annotations

import time
from typing import Any

from ..calls import FuelMeter
from ..errors import TrapCode, WasmError
from ..protocol import messages as m
from ..slots import SLOT_BYTES
from ..values import WasmVal
from . import monitor
from .calling import Export
from .channel import Channel
from .handle import Handle
from .memory import RemoteMemory
from .serving import Serving


class Answers:
    """See the module's text. Whoever makes one fills it in."""

    handle: Handle
    fuel: FuelMeter
    memory: RemoteMemory
    serving: Serving
    channel: Channel
    answered_at: float

    @property
    def busy(self) -> bool:
        """Whether an operation of this instance is under way."""
        return self.handle.busy is self

    @busy.setter
    def busy(self, on: bool) -> None:
        self.handle.busy = self if on else None

    def conclude(
        self, export: Export, budget: int, kind: int, payload: memoryview | bytes, watch: monitor.Watch, *, plain: bool
    ) -> Any:
        """What a CALL comes to by this reply."""
        self.answered_at = time.monotonic()
        if self.channel.interrupted:
            raise self._stopped(kind, payload, budget, watch)
        if kind != m.RESULT or len(payload) != export.reply_payload:
            raise self._failure(kind, payload, budget)
        used, *where = m.RESULT_LAYOUT.unpack_from(payload)
        raws = export.results.raw_values(payload, m.RESULT_LAYOUT.size)
        self._settle(used, budget)
        self.memory.where = tuple(where)
        self.busy = False
        if self.serving.error is not None:  # of a pd_log, after which the guest made no host call any more
            raise self.serving.take_error()
        return export.results.plain(raws) if plain else export.results.make(raws)

    def batch_results(
        self,
        export: Export,
        kind: int,
        payload: memoryview | bytes,
        rows: int,
        results: list[list[WasmVal]],
        budget: int,
    ) -> m.Results:
        """What RESULTS says; its results are appended."""
        stride, width = export.stride, export.stride // SLOT_BYTES
        self.answered_at = time.monotonic()
        if kind != m.RESULTS:
            raise self.channel.broke("RESULTS was due")
        reply: m.Results = self.channel.decode(m.Results, payload)
        if reply.width != width or reply.done > rows or reply.failed != (reply.done < rows):
            raise self.channel.broke("a batch's reply does not match its rows")
        if self.serving.error is not None and not reply.failed:
            raise self.channel.broke("it went on after its host function had failed")
        self._settle(reply.fuel, budget)
        self.memory.where = reply.base, reply.size
        results += export.results.decode_rows(reply.slots, stride, reply.done)
        return reply

    def batch_error(
        self, kind: int, payload: memoryview | bytes, results: list[list[WasmVal]], watch: monitor.Watch
    ) -> WasmError:
        """What the row after `results` ended in, as RESULTS announced."""
        stopped = self.channel.interrupted
        error = self._stopped(kind, payload, 0, watch) if stopped else self._failure(kind, payload, 0)
        error.row, error.results = len(results), results
        return error

    def _failure(
        self, kind: int, payload: memoryview | bytes, budget: int, legal: frozenset[int] = m.Failure.OF_CALL
    ) -> WasmError:
        """The error that a reply other than the expected one stands for; the worker is idle again."""
        if kind != m.ERROR:
            raise self.channel.broke("a reply of the wrong size")
        message = self.channel.decode(m.Error, payload)
        if message.failure not in legal:
            raise self.channel.broke(f"an error of kind {message.failure}, which this cannot end in")
        self._settle(message.fuel, budget)
        self.memory.where = message.base, message.size
        if self.serving.cannot_be(remote=message.failure in (m.Failure.REMOTE, m.Failure.START_REMOTE)):
            raise self.channel.broke("it tells of a failure that cannot have happened")
        starved = self.handle.starved(message)
        if starved is not None:
            return starved
        self.busy = False
        return monitor.failure(message) if self.serving.error is None else self.serving.take_error()

    def _stopped(self, kind: int, payload: memoryview | bytes, budget: int, watch: monitor.Watch) -> WasmError:
        """The deadline's verdict after an interrupt; only the interrupt's own trap proves that none is under way."""
        verdict = monitor.wall_exceeded(watch.wall_s)
        if kind == m.ERROR:
            message = self.channel.decode(m.Error, payload)
            trapped = message.failure == m.Failure.TRAP and message.trap_code == TrapCode.INTERRUPT.value
            if trapped and not self.serving.cannot_be(remote=False):
                self._settle(message.fuel, budget)
                self.memory.where = message.base, message.size
                self.busy = False
                return verdict if self.serving.error is None else self.serving.take_error()
        return self.serving.after_all(self.handle.condemn(verdict))

    def _settle(self, used: int, budget: int) -> None:
        """Book the fuel that the worker reports, after checking it for sense."""
        if used > budget:
            raise self.channel.broke("more fuel used than there was")
        self.fuel.settle(used)
