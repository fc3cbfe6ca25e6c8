"""The rival: plain wasmtime-py in this process, configured like pdsandbox's own engine as far as wasmtime-py can be.

512 KiB of stack, no parallel compilation, no copy-on-write memory images, no debug information; fuel or epochs as
asked. Fuel and epoch deadline are set once, so high that they never run out: setting them for each call, as a service
would have to, would only make the rival slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wasmtime

from pdsandbox import HostFunction, Limits

FUEL_FOREVER = 2**63 - 1
_EPOCHS_FOREVER = 2**62
_U32 = 0xFFFF_FFFF


def engine(*, fuel: bool = True, interruptible: bool = False) -> wasmtime.Engine:
    """An engine that meters as `EngineConfig(fuel=…, interruptible=…)` does."""
    config = wasmtime.Config()
    config.consume_fuel = fuel
    config.epoch_interruption = interruptible
    config.parallel_compilation = False
    config.memory_init_cow = False
    config.debug_info = False
    config.max_wasm_stack = Limits().stack_bytes
    return wasmtime.Engine(config)


def store(made: wasmtime.Engine, *, fuel: bool = True, interruptible: bool = False) -> wasmtime.Store:
    """A store of an engine made with the same arguments, whose meters never run out.

    Do not close it: it goes with its last reference. Ctrl-C inside wasmtime-py's `close` has it freed twice.
    """
    fresh = wasmtime.Store(made)
    if fuel:
        fresh.set_fuel(FUEL_FOREVER)
    if interruptible:
        fresh.set_epoch_deadline(_EPOCHS_FOREVER)
    return fresh


def host_function(into: wasmtime.Store, type_: wasmtime.FuncType, function: HostFunction) -> wasmtime.Func:
    """pdsandbox's `HostFunction`, as wasmtime-py wants it."""
    fn: Callable[..., Any] = function.fn

    def call(caller: wasmtime.Caller, *arguments: Any) -> Any:
        return fn(_Caller(caller), *arguments)

    return wasmtime.Func(into, type_, call, access_caller=True)


class _Caller:
    """`pdsandbox.Caller` over wasmtime-py's."""

    def __init__(self, caller: wasmtime.Caller) -> None:
        self._caller = caller
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory

    def memory_read(self, offset: int, length: int) -> bytes:
        start = offset & _U32
        return bytes(self._memory.read(self._caller, start, start + length))

    def memory_write(self, offset: int, data: bytes) -> None:
        self._memory.write(self._caller, data, offset & _U32)
