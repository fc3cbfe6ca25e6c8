"""Hears what a guest says that is asked to stop, in the place of a task that was cancelled, and gives its turn back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..errors import WasmError
from ..protocol import messages as m
from ..supervisor import monitor
from ..supervisor.calling import Export
from ..supervisor.conversation import Conversation
from .port import Operation, Port

__all__ = ["hear_out"]

# A guest that is about to answer need not be interrupted; an interrupt that crosses its answer would cost its worker.
_ANSWER_S: Final = 0.001

#: Tasks of ours: a loop itself holds none.
_draining: set[asyncio.Task[None]] = set()


def hear_out(
    port: Port,
    talk: Conversation,
    calling: tuple[Export, int, monitor.Watch],
    give_back: Callable[[Operation], None],
) -> None:
    """In a task of its own, which ends by `give_back`. `calling`: the export that was called, its budget, its watch."""
    task = port.loop.create_task(_hear_out(port, talk, *calling, give_back))
    _draining.add(task)
    task.add_done_callback(_draining.discard)


async def _hear_out(
    port: Port,
    talk: Conversation,
    export: Export,
    budget: int,
    watch: monitor.Watch,
    give_back: Callable[[Operation], None],
) -> None:
    """Nothing that the guest wants is done any more; one that says anything but that it has stopped, or had finished
    before, is killed."""
    operation, channel = Operation(port), port.channel
    port.operation = operation
    if channel.orders.legal(m.CALL):
        channel.orders.advance(m.CALL)  # as it is when the reply is the first thing that is heard
    hurried = replace(watch, deadline=min(watch.deadline, time.monotonic() + _ANSWER_S))
    try:
        while True:
            kind, payload = await port.receive(hurried)
            if kind == m.STREAM_OUT:
                talk.serving.keep(payload)
            elif kind != m.HOST_LOG:
                break
        if kind == m.RESULT and channel.interrupted:
            return  # it may yet find the interrupt, in the next call
        if kind in (m.RESULT, m.ERROR):
            talk.conclude(export, budget, kind, payload, watch, plain=False)
    except WasmError:
        pass  # the verdict stands, and whoever comes next is told
    finally:
        give_back(operation)
