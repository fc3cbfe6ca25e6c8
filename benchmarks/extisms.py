"""The rival with a calling convention of its own: Extism, in this process, through its Python SDK.

An Extism plugin takes bytes and gives bytes, through functions that the guest imports, so its `add` reads two
little-endian i32 from its input and writes their sum to its output; packing and unpacking them is part of a call.
"""

from __future__ import annotations

import struct
from typing import Any

from pdsandbox import Limits

from .guests import binary

_ADD = """(module
  (import "extism:host/env" "input_load_u64" (func $input (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory (export "memory") 1)
  (func (export "add") (result i32) (local $both i64) (local $sum i64)
    (local.set $both (call $input (i64.const 0)))
    (local.set $sum (call $alloc (i64.const 8)))
    (call $store (local.get $sum) (i64.extend_i32_u (i32.add
      (i32.wrap_i64 (local.get $both))
      (i32.wrap_i64 (i64.shr_u (local.get $both) (i64.const 32))))))
    (call $output (local.get $sum) (i64.const 4))
    (i32.const 0)))"""
_two = struct.Struct("<2i")
_one = struct.Struct("<i")


def plugin(*, limited: bool) -> Any:
    """A plugin with our `add`, a context manager; `limited`: with the deadline and memory that pdsandbox's guests get.

    Extism's Python SDK offers no fuel.
    """
    import extism  # its library is large: nobody else's start is to pay for it

    wasm = binary(_ADD)
    if not limited:
        return extism.Plugin(wasm, functions=[])
    limits = Limits()
    manifest: dict[str, Any] = {"wasm": [{"data": wasm}]}
    if limits.wall_s is not None:
        manifest["timeout_ms"] = int(limits.wall_s * 1000)
    if limits.memory_bytes is not None:
        manifest["memory"] = {"max_pages": limits.memory_bytes >> 16}
    return extism.Plugin(manifest, functions=[])


def add(plugin: Any, a: int, b: int) -> int:
    """One call of the plugin's `add`."""
    result: int = _one.unpack(plugin.call("add", _two.pack(a, b)))[0]
    return result
