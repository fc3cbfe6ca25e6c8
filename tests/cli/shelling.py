"""What the command line's tests share: a module with a bit of everything, and files."""

from __future__ import annotations

from pathlib import Path

FUNCTIONS = r"""(module
  (import "env" "pd_log" (func (param i32 i32 i32)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "id") (param i32 i64 f32 f64) (result i32 i64 f32 f64)
    (local.get 0) (local.get 1) (local.get 2) (local.get 3))
  (func $inner (export "trap") unreachable)
  (func (export "nothing"))
  (func (export "vector") (param v128))
  (func (export "spin") (loop $on (br $on)))
  (memory (export "memory") 2 5)
  (global (export "g") i32 (i32.const 7))
  (table (export "t") 1 funcref))
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
