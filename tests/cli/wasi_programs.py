"""Small WASI programs for the command line's tests, each doing one thing."""

from __future__ import annotations

_HEAD = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "name? ready\\n")
  ;; One vector at 0, the count at 8; the buffer at 1024.
  (func $in (param $most i32) (result i32)
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (local.get $most))
    (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func $out (param $fd i32) (param $at i32) (param $n i32) (result i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $n))
    (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
"""


def program(body: str, more: str = "") -> str:
    """A command that does this."""
    return f'{_HEAD}  {more}\n  (func (export "_start") {body}))\n'


NOTHING = program("")
#: Copies its input to its output, as it comes.
CAT = program("""(block $end (loop $on
  (br_if $end (call $in (i32.const 65536)))
  (br_if $end (i32.eqz (i32.load (i32.const 8))))
  (br_if $end (call $out (i32.const 1) (i32.const 1024) (i32.load (i32.const 8))))
  (br $on)))""")
#: Reads two bytes and says them.
READ_TWO = program("""(drop (call $in (i32.const 2)))
  (drop (call $out (i32.const 1) (i32.const 1024) (i32.load (i32.const 8))))""")
#: Ends with the errno of a read, and of a write.
READ_ERRNO = program("(call $exit (call $in (i32.const 2)))")
WRITE_ERRNO = program("(call $exit (call $out (i32.const 1) (i32.const 64) (i32.const 12)))")
#: Writes for ever, whatever becomes of it.
YES = program("(loop $on (drop (call $out (i32.const 1) (i32.const 70) (i32.const 6))) (br $on))")
#: Asks without a newline, reads a line and says it back.
ASK = program("""(drop (call $out (i32.const 1) (i32.const 64) (i32.const 6)))
  (drop (call $in (i32.const 100)))
  (drop (call $out (i32.const 1) (i32.const 1024) (i32.load (i32.const 8))))""")
#: Says that it is ready, and then does one thing.
SPIN = program("(drop (call $out (i32.const 1) (i32.const 70) (i32.const 6))) (loop $on (br $on))")
TRAP = program("(drop (call $out (i32.const 1) (i32.const 70) (i32.const 6))) unreachable")
#: A program with another export, and one that exits in it.
BOTH = program(
    "(call $exit (i32.const 1))",
    """(func (export "seven") (result i32) (i32.const 7))
  (func (export "leave") (param i32) (call $exit (local.get 0)))""",
)
