"""Commands in WebAssembly text, for tests of workers."""

from __future__ import annotations

HI = '(data (i32.const 0) "\\10\\00\\00\\00\\03\\00\\00\\00") (data (i32.const 16) "hi\\0a")'
WRITE = f"""(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  {{more}}
  (memory (export "memory") 1) {HI}
  (func $hi (export "hi") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $sleep (drop (call $poll (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 8))))"""


def command(body, more=""):
    return f'(module {WRITE.format(more=more)} (func $run (export "_start") {body}) (func (export "run") (call $run)))'


TOLD = '(import "m" "told" (func $told))'
THRICE = "(call $hi) (call $hi) (call $told) (call $hi)"
SLEEPS = "(loop $l (call $sleep) (br $l))"
GROWS = """(loop $l
  (memory.fill (i32.mul (memory.grow (i32.const 16)) (i32.const 65536)) (i32.const 1) (i32.const 1048576)) (br $l))"""
