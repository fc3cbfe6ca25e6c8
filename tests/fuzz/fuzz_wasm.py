"""Binary modules to damage, and the damages: bytes, sections, LEB128 numbers. Deterministic; knows no host."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import wasmtime
from fuzz_mutations import Dice

GUESTS = Path(__file__).parent.parent / "guests"
#: What hostile guests lack: many sections, all value types, tables, globals, data, several exports.
RICH = """(module
  (type $binary (func (param i32 i32) (result i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (import "m" "f" (func $f (param i64 f64) (result f32)))
  (table 4 8 funcref)
  (memory (export "memory") 1 2)
  (global $g (export "g") (mut i64) (i64.const -1))
  (export "add" (func $add)) (export "sub" (func $sub)) (export "mixed" (func $mixed)) (export "loop" (func $loop))
  (start $start)
  (elem (i32.const 0) $add $sub)
  (func $start (call $log (i32.const 1) (i32.const 8) (i32.const 5)))
  (func $add (type $binary) (i32.add (local.get 0) (local.get 1)))
  (func $sub (type $binary) (i32.sub (local.get 0) (local.get 1)))
  (func $mixed (param f32 i64) (result f64) (local i32 f64)
    (drop (call $f (local.get 1) (f64.const nan:0x4000000000001)))
    (drop (call_indirect (type $binary) (i32.const 3) (i32.const 4) (i32.const 1)))
    (i64.store offset=16 (local.get 2) (local.get 1))
    (f64.load offset=16 (local.get 2)))
  (func $loop (param i32) (result i32)
    (local $i i32)
    (block $out (loop $again
      (br_if $out (i32.ge_u (local.get $i) (local.get 0)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (drop (memory.grow (i32.const 0)))
      (br $again)))
    (br_table 0 0 0 (local.get $i) (local.get $i)))
  (data (i32.const 8) "hello")
  (data "passive"))"""


def corpus() -> dict[str, bytes]:
    """By name: the guests of the other tests, RICH, and a real program if it is installed."""
    found = {"rich": wasmtime.wat2wasm(RICH)}
    for path in sorted(GUESTS.glob("*.wat")):
        found[path.stem] = bytes(wasmtime.wat2wasm(path.read_text(encoding="utf-8")))
    try:
        found["vt100"] = importlib.resources.files("vt100wasm").joinpath("_vt100.wasm").read_bytes()
    except ModuleNotFoundError:
        pass
    return {name: bytes(binary) for name, binary in found.items()}


def leb(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


HUGE = [leb(n) for n in (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 1000, 100_000, 65_536)]
HUGE += [b"\xff" * 5 + b"\x0f", b"\x80" * 9 + b"\x01", b"\x80\x80\x80\x80\x00", b"\xff" * 12, b"\x80" * 4 + b"\x10"]


def _leb_end(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            break
    return value, at


def sections(binary: bytes) -> list[tuple[int, bytes]]:
    """(id, contents) of a valid module's sections."""
    found, at = [], 8
    while at < len(binary):
        number = binary[at]
        size, at = _leb_end(binary, at + 1)
        found.append((number, binary[at : at + size]))
        at += size
    return found


def joined(parts: list[tuple[int, bytes]]) -> bytes:
    return b"\0asm\1\0\0\0" + b"".join(bytes([number]) + leb(len(data)) + data for number, data in parts)


def _bytes(dice: Dice, data: bytes) -> bytes:
    """One to four damages of single bytes."""
    out = bytearray(data)
    for _ in range(1 + dice.below(4)):
        at = dice.below(len(out) + 1)
        match dice.below(6):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << dice.below(8)
            case 2 if at < len(out):
                out[at] = dice.choice((0, 1, 0x0B, 0x40, 0x7F, 0x80, 0xFC, 0xFD, 0xFF))
            case 3:
                out[at:at] = dice.data(1 + dice.below(4))
            case 4:
                del out[at : at + 1 + dice.below(4)]
            case 5:
                _, end = _leb_end(out, at)
                out[at:end] = dice.choice(HUGE)
    return bytes(out)


def mutate(dice: Dice, binary: bytes, other: bytes) -> bytes:
    """`binary` damaged; `other` lends sections."""
    parts = sections(binary)
    match dice.below(10):
        case 0:  # anywhere, sizes of sections included
            return binary[:8] + _bytes(dice, binary[8:])
        case 1:
            return binary[: 8 + dice.below(len(binary) - 7)]
        case 2:
            del parts[dice.below(len(parts))]
        case 3:
            parts.insert(dice.below(len(parts) + 1), dice.choice(sections(other)))
        case 4:
            a, b = dice.below(len(parts)), dice.below(len(parts))
            parts[a], parts[b] = parts[b], parts[a]
        case 5:
            graft = dict(sections(other))
            parts = [(number, graft.get(number, data) if dice.one_in(2) else data) for number, data in parts]
        case 6:  # a section that claims to hold more items than it does
            at = dice.below(len(parts))
            number, data = parts[at]
            parts[at] = (number, dice.choice(HUGE) + data[_leb_end(data, 0)[1] :])
        case _:  # inside one section, whose size stays true: this gets furthest
            at = dice.below(len(parts))
            number, data = parts[at]
            parts[at] = (number, _bytes(dice, data))
    return joined(parts)
