"""What the tests on event loops share: a guest, an error that is expected, and waiting for what a guest says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from pdsandbox import AsyncInstance, AsyncSupervisor, HostFunction, WasmError, WasmImports

#: `tell` and `ask` call the host; `run` tells and then loops for ever, `spin` only loops.
GUEST = """(module
  (import "env" "tell" (func $tell (param i32)))
  (import "env" "ask" (func $ask (param i32) (result i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "ask") (param i32) (result i32) (call $ask (local.get 0)))
  (func (export "log") (call $log (i32.const 3) (i32.const 0) (i32.const 2)))
  (func (export "run") (call $tell (i32.const 0)) (loop $again (br $again)))
  (func (export "spin") (loop $again (br $again)))
  (func (export "trap") (unreachable)))"""
#: Bounds a wait for what takes milliseconds; only a failing test waits so long.
PATIENCE_S = 30.0


def nothing(_caller: Any, _value: int) -> None:
    """Hears what is told."""


def same(_caller: Any, value: int) -> int:
    """Answers what is asked."""
    return value


async def make(host: AsyncSupervisor, tell: Any = nothing, ask: Any = same, pd_log: Any = None) -> AsyncInstance:
    """An instance of GUEST."""
    functions = {
        ("env", "tell"): HostFunction(tell, ("i32",)),
        ("env", "ask"): HostFunction(ask, ("i32",), ("i32",)),
    }
    module = await host.compile(GUEST)
    return await host.instantiate(module, WasmImports(functions=functions, pd_log=pd_log))


async def expect(cls: type[WasmError], cause: Any, awaitable: Awaitable[Any]) -> Any:
    """Awaiting raises exactly this class with this cause; the error."""
    with pytest.raises(WasmError) as caught:
        await asyncio.wait_for(awaitable, PATIENCE_S)
    assert (type(caught.value), caught.value.cause) == (cls, cause), repr(caught.value)
    return caught.value


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel it; that is what it ends in."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Running:
    """A task that calls `run`, and an event for when the guest has begun."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def tell(self, _caller: Any, _value: int) -> None:
        """The host function."""
        self.begun.set()

    async def start(self, instance: AsyncInstance, **options: Any) -> asyncio.Task[Any]:
        """Call; returns once the guest runs."""
        task = asyncio.create_task(instance.call("run", [], **options))
        await asyncio.wait_for(self.begun.wait(), PATIENCE_S)
        self.begun.clear()
        return task
