"""Small, valid modules that cost a compiler seconds or gigabytes. Verified by the tests that use them."""

from __future__ import annotations


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + _leb(len(content)) + content


def _module(bodies: list[bytes]) -> bytes:
    """A module with these function bodies, all of type (i32) -> ()."""
    count = _leb(len(bodies))
    return b"\0asm\1\0\0\0" + b"".join(
        (
            _section(1, b"\1\x60\1\x7f\0"),
            _section(3, count + bytes(len(bodies))),
            _section(10, count + b"".join(_leb(len(body)) + body for body in bodies)),
        )
    )


def jump_tables(depth: int = 1000, tables: int = 100) -> bytes:
    """190 KB, tens of seconds: jump tables that each leave any of `depth` nested blocks, every edge metering fuel."""
    table = b"\x20\0\x0e" + _leb(depth - 1) + b"".join(map(_leb, range(depth)))
    return _module([b"\0" + b"\2\x40" * depth + (b"\2\x40" + table + b"\x0b") * tables + b"\x0b" * depth + b"\x0b"])


def nested_loops(locals_: int = 10_000, depth: int = 10_000) -> bytes:
    """170 KB, gigabytes and tens of seconds: each of so many nested loops may change each of so many locals."""
    body = b"".join(
        b"\3\x40\x20%b\x0d\0\x20%b\x41\1\x6a\x21%b"
        % (_leb(1 + k % locals_), _leb(1 + 3 * k % locals_), _leb(1 + 5 * k % locals_))
        for k in range(depth)
    )
    return _module([b"\1" + _leb(locals_) + b"\x7f" + body + b"\x0b" * depth + b"\x0b"])


def empty_functions(count: int = 200_000) -> bytes:
    """800 KB, about ten seconds: so many functions, each of which is compiled and linked for itself."""
    return _module([b"\0\x0b"] * count)


def many_table_elements(tables: int = 8, elements: int = 10_000_000) -> str:
    """Half a kilobyte of text that makes the engine write 640 MB of tables while instantiating: 0.2 to 2 seconds."""
    return "(module (func $f) " + f"(table {elements} funcref (ref.func $f))" * tables + ")"


def many_exports(count: int = 30_000) -> str:
    """About 10 ms of looking up names while instantiating."""
    return "(module (func $f) " + "".join(f'(export "e{i}" (func $f))' for i in range(count)) + ")"


def data_segment(size: int = 20 << 20) -> bytes:
    """One active segment of 20 MiB: about 20 ms of mapping and copying while instantiating."""
    memory = b"\1\0" + _leb(size // 65536 + 1)
    return b"\0asm\1\0\0\0" + _section(5, memory) + _section(11, b"\1\0\x41\0\x0b" + _leb(size) + b"x" * size)
