"""A module of our own, run once in the fork server and once in every spare worker.

It walks the paths that a first call would walk (load, link, call, host call, growth, trap), so that their pages are
shared by every fork, or at least touched before a worker is handed out. Knows the engine; nothing of the wire.
It has no data segments: for those the engine would keep a file open, which workers close with all that they inherit.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..errors import WasmError
from ..externs import FuncType, ImportType
from ..runtime.engine import Engine, Module
from ..runtime.guest import Guest, RawFunction

SOURCE = b"""(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1 3)
  (func (export "add") (param i32 i32) (result i32)
    (call $log (i32.const 1) (i32.const 8) (i32.const 4))
    (i32.add (local.get 0) (local.get 1)))
  (func (export "grow") (result i32)
    (i32.store (i32.const 65532) (i32.const 1))
    (memory.grow (i32.const 1)))
  (func (export "trap") (unreachable)))"""

#: Of its only import, `pd_log`.
LOG_TYPE = FuncType(("i32", "i32", "i32"), ())


def _bind(wanted: ImportType, guest: Guest) -> RawFunction:
    def host(address: int) -> None:
        ctypes.string_at(address, 16)

    return RawFunction(LOG_TYPE, host)


def warm(engine: Engine, artifact: bytes) -> Module:
    """Run the warm-up; the loaded module may be kept, so that a worker can `run_once` without loading again."""
    module = engine.deserialize(artifact)
    run_once(engine, module)
    return module


def run_once(engine: Engine, module: Module) -> None:
    """One instance, a call with a host call, growth, and a trap."""
    guest = Guest(engine, memory_bytes=1 << 20, memories=1, table_elements=0)
    try:
        guest.instantiate(module, _bind, 1_000_000)
        buffer: Any = ctypes.create_string_buffer(64)
        address = (ctypes.addressof(buffer) + 15) & ~15
        for name in ("add", "grow", "trap"):
            export = guest.resolve(name)
            if export is None:
                raise SystemExit(f"the warm-up module does not export {name}")
            try:
                guest.bind(export, address)(1_000_000)
            except WasmError:
                if name != "trap":
                    raise
        guest.memory_write(0, guest.memory_read(8, 4))
    finally:
        guest.close()
