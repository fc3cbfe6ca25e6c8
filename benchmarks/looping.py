"""The warm call on an event loop, beside the least that two processes need there: a bare pipe, in the same loop.

The bare one has its reader registered once and for all, one future a round trip, and a child that blocks; nothing else.
The loop never spins, for neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from pdsandbox import I32, AsyncInstance, AsyncSupervisor

from .echo import REPLY_BYTES, REQUEST_BYTES
from .guests import ADD
from .measure import Bar, Contender, Group, Row, Series
from .pipes import Echo

# 100 calls take from 3 to 15 ms.
_CALLS = 100
_LEAD_IN = 20

SERIES = (
    Series("loop.call", 'AsyncSupervisor: await instance.call("add", [I32(1), I32(2)])'),
    Series("loop.func", 'AsyncSupervisor: add = instance.func("add"); await add(1, 2)'),
    Series("loop.pipe", "bare pipe round trip in the same event loop", short="bare asyncio pipe"),
)
ROWS = (
    Row("loop_call.pipe", "isolated call, asyncio", "loop.call", "loop.pipe", bar=Bar(2.0, "issue 6")),
    Row("loop_func.pipe", "isolated func, asyncio", "loop.func", "loop.pipe"),
)


class _LoopEcho:
    """An echo child on an event loop. `round_trip` is one message there and one back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, echo: Echo) -> None:
        self._loop = loop
        self._requests, self._replies = echo.pipes
        self._waiter: asyncio.Future[bytes] | None = None
        self._request = bytes(REQUEST_BYTES)
        loop.add_reader(self._replies, self._ready)

    def _ready(self) -> None:
        assert self._waiter is not None
        self._waiter.set_result(os.read(self._replies, REPLY_BYTES))

    async def round_trip(self) -> bytes:
        self._waiter = waiter = self._loop.create_future()
        os.write(self._requests, self._request)
        return await waiter

    def close(self) -> None:
        self._loop.remove_reader(self._replies)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with asyncio.Runner() as runner, Echo("block") as child:
        loop = runner.get_loop()

        async def start() -> tuple[AsyncSupervisor, AsyncInstance]:
            host = AsyncSupervisor()
            return host, await host.instantiate(await host.compile(ADD))

        host, instance = runner.run(start())
        echo = _LoopEcho(loop, child)
        add = instance.func("add")

        async def call() -> object:
            return await instance.call("add", [I32(1), I32(2)])

        async def func() -> object:
            return await add(1, 2)

        def block(key: str, operation: Callable[[], Awaitable[object]]) -> Contender:
            async def many() -> float:
                for _ in range(_LEAD_IN):
                    await operation()
                started = time.perf_counter()
                for _ in range(_CALLS):
                    await operation()
                return (time.perf_counter() - started) / _CALLS

            def sample() -> Mapping[str, float]:
                return {key: runner.run(many())}

            return sample

        # What answers wrongly is not worth timing.
        assert runner.run(call()) == [I32(3)]
        assert runner.run(func()) == 3
        try:
            yield block("loop.call", call), block("loop.pipe", echo.round_trip), block("loop.func", func)
        finally:
            echo.close()
            runner.run(host.close())


GROUP = Group(
    "loop",
    "warm calls on an event loop",
    SERIES,
    ROWS,
    _open,
    rounds=200,
    quick_rounds=40,
    warmup=5,
    caption="One small function, awaited again and again. Each call waits for its worker through the loop.",
)
