"""What the tests of guest memory share. Each runs on every host, and on a supervisor twice: as the kernel lets it copy,
and through the worker's pipes. With shared workers only that: a copy knows an address, and no instance."""

from __future__ import annotations

import errno

import pytest

from pdsandbox import Cause, MemoryAccessError

WAYS = {
    "wasmtime": ("wasmtime", None),
    "supervisor": ("supervisor", None),
    "piped": ("supervisor", errno.EPERM),
    "module-piped": ("module", errno.EPERM),
    "asyncio": ("asyncio", None),
    "asyncio-piped": ("asyncio", errno.EPERM),
}
EVERY_WAY = [
    pytest.mark.parametrize(("host_kind", "refusal"), WAYS.values(), ids=WAYS, indirect=["host_kind"], scope="session"),
    pytest.mark.usefixtures("_refused"),
]
PAGE = 65536
ONE_PAGE = """(module (memory (export "memory") 1 100)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1))))"""


def outside(make):
    """`make()` raises MemoryAccessError, as documented."""
    with pytest.raises(MemoryAccessError) as caught:
        make()
    assert caught.value.cause is Cause.MEMORY
    assert str(caught.value) == "WASM memory access out of bounds"
