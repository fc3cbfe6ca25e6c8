"""What a task says to one worker, and waits for: calls, batches, a program's run. Used by the holder of the turn only.

The requests, the replies and what they mean are `Conversation`'s; here is what waits between them.
"""

from __future__ import annotations

import struct
import time
from typing import Any, Final

from ..calls import check_command
from ..errors import GuestExit, WasmError
from ..platform import os_
from ..protocol import messages as m
from ..slots import SLOT_BYTES
from ..supervisor import monitor
from ..supervisor.calling import FIELDS, WHERE_AT, Export, where
from ..supervisor.conversation import Conversation
from ..supervisor.housekeeper import Housekeeper
from ..values import WasmVal
from ..wasi import Output, RunResult
from .memory import Memory
from .port import Port
from .serving import Serving
from .starters import Starters

__all__ = ["Talk"]

_CALL: Final = m.CALL
_read: Final = os_.read_raw
_write: Final = os_.write_raw
_NOWHERE: Final = (0, 0)


class Talk:
    """See the module's text.

    calling  (export, budget, watch) of a call that is being waited for: what an interrupt needs to end it
    """

    def __init__(self, talk: Conversation, port: Port, housekeeper: Housekeeper, streaming: Starters) -> None:
        self.conversation = talk
        self.port = port
        self.memory = Memory(talk.memory, port, talk.instance)
        self.calling: tuple[Export, int, monitor.Watch] | None = None
        self._serving = Serving(talk, port, housekeeper, streaming)

    async def call(
        self, export: Export, args: Any, started: float, wall_s: float | None, fuel: int | None, *, plain: bool
    ) -> Any:
        """As `supervisor.warm`: one write, one wait, one read, while nothing else happens."""
        talk, port = self.conversation, self.port
        channel, memory = port.channel, talk.memory
        budget = talk.fuel.begin(fuel)
        flags = talk.request_flags(started, wall_s)
        nbytes, packed, failure = export.request_bytes, False, None
        try:
            if channel.held or export.unresolved is not None or nbytes > len(channel.out):
                raise TypeError
            port.in_callback = True  # an argument may have code of its own
            raw = args if plain and export.integers else export.raw(args)
            export.pack(channel.out, 0, export.request_payload, _CALL, export.number, flags, budget, talk.wall_us, *raw)
            packed = True
        except Exception as exc:
            failure = None if isinstance(exc, struct.error | TypeError) else exc
        finally:
            port.in_callback = False
        if not packed:
            port.in_callback = True
            try:
                data = export.params.encode(args)
            finally:
                port.in_callback = False
            try:
                if failure is not None:
                    raise failure  # a signal handler's
            finally:
                failure = None  # as in `Slots.encode`
            watch = talk.watch(started, wall_s, call=True)
            self.calling = export, budget, watch
            talk.busy = True
            head = m.CALL_LAYOUT.pack(export.number, flags, budget, talk.wall_us)
            await self._send(export, _CALL, b"".join((export.call_head, head, data)), watch)
            return await self._finish(export, budget, watch, plain=plain)
        watch = talk.watch(started, wall_s, call=True)
        self.calling = export, budget, watch
        talk.busy = True
        done = _write(channel.writing, channel.out_at, export.request_size)
        if done == nbytes:
            await port.wait(watch)
            got = _read(*channel.reading)
            if got == export.reply_bytes and not channel.interrupted:
                fields = export.unpack(channel.view)
                if fields[0] == export.reply_head and fields[1] <= budget:
                    talk.fuel.settle(fields[1])
                    memory.where = where(channel.view, WHERE_AT) if flags & m.WHERE else _NOWHERE
                    talk.answered()
                    if export.one is not None:
                        if plain:
                            return fields[FIELDS] if export.plain_one is None else export.plain_one(fields[FIELDS])
                        return [export.one(fields[FIELDS])]
                    return export.results.plain(fields[FIELDS:]) if plain else export.results.make(fields[FIELDS:])
        else:
            got = -1
        rest = bytes(channel.out[max(done, 0) : nbytes])
        channel.resume(_CALL, channel.out[:0], 0, got, watch)
        if got == 0:
            raise await port.ended(watch)
        if rest:
            await port.send_rest(memoryview(rest), watch)
        return await self._finish(export, budget, watch, plain=plain)

    async def _finish(self, export: Export, budget: int, watch: monitor.Watch, *, plain: bool) -> Any:
        kind, payload = await self.port.receive(watch)
        if kind in m.ASIDES:
            kind, payload = await self._serving.converse(kind, payload, watch)
        return self.conversation.conclude(export, budget, kind, payload, watch, plain=plain)

    async def _send(self, export: Export, kind: int, frame: bytes, watch: monitor.Watch) -> None:
        """`frame`, with RESOLVE if the worker does not know the export yet."""
        resolve = self.conversation.resolving(export)
        if resolve is None:
            await self.port.send(kind, frame, watch)
            return
        self.port.channel.orders.advance(m.RESOLVE)
        await self.port.send(kind, resolve + frame, watch)
        self.conversation.resolved(export)

    async def batch(
        self,
        export: Export,
        count: int,
        data: bytes | bytearray,
        started: float,
        wall_s: float | None,
        fuel: int | None,
        most: int,
        results: list[list[WasmVal]],
    ) -> None:
        """`count` rows in `data`, at most `most` in a message; their results are appended."""
        talk, stride, port = self.conversation, export.stride, self.port
        budget = talk.fuel.begin(fuel)
        watch = talk.begin(started, wall_s, call=True)
        for at in range(0, count, most):
            few = min(most, count - at)
            piece = data if few == count else data[at * stride : (at + few) * stride]
            frame = talk.batch_frame(export, piece, few, budget, started, watch, more=bool(results))
            await self._send(export, m.CALL_MANY, frame, watch)
            kind, payload = await self._serving.converse(*await port.receive(watch), watch)
            reply = talk.batch_results(export, kind, payload, few, results, budget)
            if port.channel.interrupted or reply.failed:
                if not reply.failed:
                    raise port.handle.condemn(monitor.wall_exceeded(watch.wall_s))
                raise talk.batch_error(*await port.receive(watch), results, watch)
            budget -= reply.fuel
            talk.look(time.monotonic(), watch)
        talk.busy = False

    # --- programs ---

    async def run(
        self, start: Export, began: float, *, has_run: bool, fuel: int | None, wall_s: float | None
    ) -> RunResult:
        """As `supervisor.program.run`."""
        talk = self.conversation
        check_command(start.type, has_run=has_run)
        before, code = talk.fuel.used, 0
        try:
            await self.call(start, (), began, wall_s, fuel, plain=True)
        except GuestExit as exc:
            code = exc.exit_code or 0
        except WasmError as exc:
            exc.output = await self.written(wall_s)
            raise
        used = talk.fuel.used - before if talk.fuel.metered else None
        output = await self.written(wall_s)
        return RunResult(code, output.stdout, output.stderr, output.truncated, used)

    async def written(self, wall_s: float | None) -> Output:
        """As `supervisor.program.written`."""
        talk, port = self.conversation, self.port
        streams = talk.serving.streams
        if streams is None:
            return Output()
        if talk.busy:
            return streams.last_words(cut=True)
        output, any_came = streams.take()
        if any_came and port.handle.alive and not talk.closed:
            watch, talk.busy = talk.watch(time.monotonic(), wall_s), True
            try:
                await port.send(m.STREAM_TAKEN, m.StreamTaken(talk.instance).frame(), watch)
            except WasmError as exc:
                exc.output = output
                raise
            talk.busy = False
        return output


def rows_at_once(message_bytes: int, stride: int) -> int:
    """How many rows go into one message."""
    return max(1, message_bytes // max(SLOT_BYTES, stride))
