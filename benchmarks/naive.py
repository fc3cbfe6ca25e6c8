"""The far side of the rivals: wasmtime-py as people use it in a process of their own, compiled once and called by name.

Loaded in every pooled process, so it imports nothing but the standard library and, when first used, wasmtime-py. Must
not know pdsandbox: importing it would make a rival's start longer.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wasmtime

# Set once so high that it never runs out: setting it for each call, as a service would have to, makes a rival slower.
FUEL_FOREVER = 2**63 - 1

# This process's `add`, once `prepare` has run.
_store: Any = None
_add: Any = None


def engine(stack_bytes: int) -> wasmtime.Engine:
    """Configured as pdsandbox configures its own, as far as wasmtime-py can: fuel metered, no epochs, and so on."""
    import wasmtime

    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = False
    config.parallel_compilation = False
    config.debug_info = False
    config.max_wasm_stack = stack_bytes
    return wasmtime.Engine(config)


def prepare(wasm: bytes, stack_bytes: int) -> None:
    """Compile and instantiate `wasm` in this process: a pool's initializer."""
    import wasmtime

    global _store, _add
    ours = engine(stack_bytes)
    _store = wasmtime.Store(ours)
    _store.set_fuel(FUEL_FOREVER)
    instance = wasmtime.Instance(_store, wasmtime.Module(ours, wasm), [])
    _add = instance.exports(_store)["add"]


def add(a: int, b: int) -> Any:
    """The task: one call of the guest's `add`."""
    return _add(_store, a, b)


def serve(connection: Connection, wasm: bytes, stack_bytes: int) -> None:
    """A worker without a pool around it: arguments in, results out, until None comes or the other end closes."""
    prepare(wasm, stack_bytes)
    try:
        while (arguments := connection.recv()) is not None:
            connection.send(add(*arguments))
    except EOFError:
        pass
