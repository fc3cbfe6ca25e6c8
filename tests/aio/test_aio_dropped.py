"""An instance that no task has any more is gone at once, whatever it was used for, without a garbage collection."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from looping import make

from pdsandbox import I32, WasmError, receipts


class Once:
    """A number that raises when it is looked at for the first time."""

    def __init__(self):
        self.looked = False

    def __index__(self):
        if not self.looked:
            self.looked = True
            raise KeyError("not yet")
        return 20


def _fail(_caller, _value):
    raise KeyError("a host function's")


async def _fail_later(_caller, _value):
    raise KeyError("a host function's")


async def _in_receipts(awaitable):
    with receipts():
        await awaitable


USES = {
    "call": lambda instance: instance.call("add", [1, 2]),
    "numbers beside values": lambda instance: instance.call("add", [I32(1), 2]),
    "a wrong type": lambda instance: instance.call("add", ["1", 2]),
    "an argument that raises once": lambda instance: instance.call("add", [Once(), 2]),
    "a wrong type that leaves a receipt": lambda instance: _in_receipts(instance.call("add", ["1", 2])),
    "a host function that fails": lambda instance: instance.call("ask", [1]),
}


@pytest.mark.parametrize("ask", [_fail, _fail_later], ids=["a function", "a coroutine function"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_dropped_instance_is_gone_at_once(on_loop, use, ask):
    """After any use, and once the loop has gone round: nothing but the caller kept it."""

    async def main(host):
        instance = await make(host, ask=ask)
        for _ in range(3):
            try:
                await use(instance)
            except (WasmError, KeyError):
                pass
        kept = weakref.ref(instance)
        gc.disable()
        try:
            del instance
            await asyncio.sleep(0)
            assert kept() is None
        finally:
            gc.enable()

    on_loop(main)
