"""What the tests of pools and plugins on event loops share: a guest whose host function tells, holds and does."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Callable
from typing import Any

from looping import PATIENCE_S

from pdsandbox import AsyncPlugin, AsyncSupervisor, HostFunction, RestartPolicy, WasmImports
from pdsandbox.roster import Slot

SOURCE = """(module
  (import "m" "work" (func $work (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "work") (param i32) (result i32) (call $work (local.get 0)))
  (func (export "count") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "trap") (unreachable))
  (func (export "loop") (drop (call $work (i32.const 99))) (loop $l (br $l))))"""
#: Its start function asks for 7.
STARTING = SOURCE.replace('(func (export "trap")', "(start $go) (func $go (drop (call $work (i32.const 7)))) (func")
#: `work` answers 10 more.
TEN_MORE = SOURCE.replace("(call $work (local.get 0))", "(i32.add (i32.const 10) (call $work (local.get 0)))")


class Scene:
    """A pool (or plugin) of SOURCE, made by `make(module, imports)`. `work(n)` notes n; holds until `release()` if n is
    in `holds`; does `does[n]()`, which may be a coroutine function; and answers n + 1."""

    def __init__(self, host: AsyncSupervisor, make: Callable[..., Any]) -> None:
        self.host = host
        self.calls: list[int] = []
        self.holds: set[int] = set()
        self.does: dict[int, Any] = {}
        self.pool: Any = None
        self.now = 1000.0  # a plugin's policy's clock
        self.imports = WasmImports(functions={("m", "work"): HostFunction(self._work, ("i32",), ("i32",))})
        self._make = make
        self._gate = asyncio.Event()

    async def begin(self, source: str = SOURCE) -> Any:
        """The pool."""
        self.pool = self._make(await self.host.compile(source), self.imports)
        return self.pool

    async def _work(self, _caller: Any, value: int) -> int:
        self.calls.append(value)
        if value in self.holds:
            await self._gate.wait()
        done = self.does.get(value, lambda: None)()
        if inspect.isawaitable(done):
            await done
        return value + 1

    def release(self) -> None:
        self._gate.set()

    async def holding(self, value: int, **options: Any) -> asyncio.Task[Any]:
        """A task whose call is in its host function by now."""
        self.holds.add(value)
        task = asyncio.create_task(self.pool.call("work", [value], **options))
        await eventually(lambda: value in self.calls)
        return task

    async def looping(self, **options: Any) -> asyncio.Task[Any]:
        """A task whose guest runs for ever by now."""
        before = self.calls.count(99)
        task = asyncio.create_task(self.pool.call("loop", **options))
        await eventually(lambda: self.calls.count(99) > before)
        return task

    async def queued(self, value: int, **options: Any) -> asyncio.Task[Any]:
        """A task whose call waits by now."""
        before = self.pool._roster.waiting
        task = asyncio.create_task(self.pool.call("work", [value], **options))
        await eventually(lambda: self.pool._roster.waiting == before + 1)
        return task

    def dying(self) -> None:
        """Kill every worker of the pool that is in use, or the plugin's."""
        used = [self.pool.current()] if isinstance(self.pool, AsyncPlugin) else self.pool._roster.leased
        for each in list(used):
            os.kill(each.instance.pid if isinstance(each, Slot) else each.pid, signal.SIGKILL)


def policy(**options: Any) -> RestartPolicy:
    """One that starts again at once, as often as one likes."""
    return RestartPolicy(**{"restarts": 1000, "backoff_s": 0} | options)


async def soon(awaitable: Any) -> Any:
    """Its outcome, which takes milliseconds: only a failing test waits so long."""
    return await asyncio.wait_for(awaitable, PATIENCE_S)


async def eventually(condition: Callable[[], Any]) -> None:
    """Poll `condition`, bounded, until it holds."""

    async def holds() -> None:
        while not condition():  # noqa: ASYNC110 - of states that nobody tells of
            await asyncio.sleep(0.001)

    await soon(holds())
