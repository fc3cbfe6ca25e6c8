"""Modules with many data segments, as Go's compiler makes them: all of them get to their places, without delay."""

from __future__ import annotations

import pytest

from pdsandbox import Dir, Wasi

SEGMENTS = 50_000
# Each 16 bytes after the one before: too far apart for the engine to see them as one.
SOURCE = f"""(module (memory (export "memory") {SEGMENTS * 16 // 65536 + 1})
  {"".join(f'(data (i32.const {16 * n}) "{n:08x}")' for n in range(SEGMENTS))}
  (func (export "load") (param i32) (result i64) (i64.load (local.get 0))))"""


@pytest.mark.parametrize("dirs", [False, True], ids=["plain", "with directories"])
def test_fifty_thousand_data_segments(host, tmp_path, dirs):
    """They compile within the default limit of 30 s (minutes, if it took quadratic time), and all are there."""
    wasi = Wasi(dirs=(Dir(tmp_path, "/"),)) if dirs else None
    with host.instantiate(host.compile(SOURCE), wasi=wasi) as instance:
        for number in (0, 1, SEGMENTS // 2, SEGMENTS - 1):
            assert instance.memory_read(16 * number, 16) == b"%08x" % number + bytes(8)
        assert instance.func("load")(16 * 255) == int.from_bytes(b"000000ff", "little")


def test_instances_have_memories_of_their_own(host):
    """What one writes over its data segment, another one of the same module does not see."""
    module = host.compile('(module (memory (export "memory") 1) (data (i32.const 8) "data"))')
    with host.instantiate(module) as first, host.instantiate(module) as second:
        first.memory_write(8, b"over")
        assert (first.memory_read(8, 4), second.memory_read(8, 4)) == (b"over", b"data")
        with host.instantiate(module) as third:
            assert third.memory_read(8, 4) == b"data"
