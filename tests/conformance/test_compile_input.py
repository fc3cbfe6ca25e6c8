"""What can be compiled, and that everything else is a `CompileError`."""

from __future__ import annotations

import contextlib
import pathlib

import pytest
import wasmtime

from pdsandbox import Cause, CompileError

SMALL = """(module
  (import "env" "pd_log" (func (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (data (i32.const 0) "data"))"""
BINARY = bytes(wasmtime.wat2wasm(SMALL))
HEADER = b"\0asm\x01\0\0\0"


def refused(host, source, cause=Cause.COMPILE):
    """The CompileError for this source."""
    with pytest.raises(CompileError) as caught:
        host.compile(source)
    assert caught.value.cause is cause
    assert str(caught.value).startswith("WASM compile error: ")
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize("source", [SMALL, BINARY], ids=["text", "binary"])
def test_text_and_binary_compile_to_the_same_module(host, source):
    """A str is the text format, bytes the binary format."""
    assert host.compile(source).exports() == ["memory", "add"]


def test_the_empty_module_compiles(host):
    """Eight bytes are a module without anything."""
    module = host.compile(HEADER)
    assert (module.exports(), module.imports()) == ([], [])
    with host.instantiate(module) as instance:
        assert instance.alive


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\0",
        b"not wasm at all",
        HEADER[:7],
        b"\0asm\x02\0\0\0",
        HEADER + b"\xff",
        HEADER + b"\x01\xff\xff\xff\xff\x0f",
        b"\x7fELF" + bytes(100),
        bytes(1000),
        SMALL.encode(),
        b"(module)",
        BINARY + b"\0\0\0",
    ],
    ids=lambda source: source[:12].hex() or "empty",
)
def test_what_is_no_binary_module(host, source):
    """Not wasm, an unknown version, garbage sections, and text handed over as bytes."""
    refused(host, source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the module is empty"),
        (b"\0", "truncated: 1 of the header's 8 bytes"),
        (HEADER[:4], "truncated: 4 of the header's 8 bytes"),
        (b"\x7fELF" + bytes(60), "not a WebAssembly binary: it does not start with \\0asm"),
        (b" \n(module)", "not a WebAssembly binary: it does not start with \\0asm; pass the text format as str"),
        (b";; a comment\n", "not a WebAssembly binary: it does not start with \\0asm; pass the text format as str"),
        (b"\0asm\x0d\0\1\0", "this is a component, not a module; only core modules are supported"),
        ("(component)", "this is a component, not a module"),
        (b"\0asm\2\0\0\0", "unknown binary version 0x00000002; 1 is supported"),
    ],
    ids=ascii,
)
def test_a_common_mistake_is_explained(host, source, message):
    """What is wrong and what to do, in the same plain words on every host."""
    assert refused(host, source).message == message


@pytest.mark.parametrize("cut", [*range(9, len(BINARY), 7), len(BINARY) - 1])
def test_a_truncated_module(host, cut):
    """Cut anywhere, it is refused, unless what is left is a module by itself."""
    source = BINARY[:cut]
    try:
        wasmtime.Module.validate(wasmtime.Engine(), source)
    except wasmtime.WasmtimeError:
        refused(host, source)
    else:
        host.compile(source)


@pytest.mark.parametrize("at", range(10, len(BINARY), 17))
def test_a_flipped_byte_never_does_worse_than_a_compile_error(host, at):
    """A damaged module is refused or compiles; nothing else happens."""
    source = bytearray(BINARY)
    source[at] ^= 0xFF
    with contextlib.suppress(CompileError):
        host.compile(bytes(source))


@pytest.mark.parametrize("source", ["(component)", bytes(wasmtime.wat2wasm("(component)"))], ids=["text", "binary"])
def test_a_component_is_not_a_module(host, source):
    """Components are refused in both formats."""
    refused(host, source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "module",
        "(module",
        "(module (func (result i32)))",
        "(module) x",
        "\0asm\x01\0\0\0",
        '(module (export "a" (func 9)))',
    ],
    ids=["empty", "word", "open", "invalid", "trailing", "binary-as-text", "no-such-function"],
)
def test_what_is_no_text_module(host, source):
    """Syntax errors, invalid modules, and a binary handed over as text; only an empty text may pass for a module."""
    if source == "" and _accepts_empty_text():
        assert host.compile(source).exports() == []
    else:
        refused(host, source)


def _accepts_empty_text():
    """The text format's grammar lets a file be the fields of one module: none at all, too."""
    try:
        wasmtime.wat2wasm("")
    except wasmtime.WasmtimeError:
        return False
    return True


@pytest.mark.parametrize("source", ["\ud800", '(module (func (export "\udfff")))'], ids=["alone", "in-a-name"])
def test_text_with_a_lone_surrogate(host, source):
    """A text that has no UTF-8 encoding is a CompileError, not a UnicodeError."""
    refused(host, source)


@pytest.mark.parametrize("source", [None, 5, ["(module)"], pathlib.Path("module.wasm"), ...], ids=repr)
def test_what_is_neither_bytes_nor_str(host, source):
    """TypeError that names both kinds and what was given: a path is never opened."""
    with pytest.raises(TypeError) as caught:
        host.compile(source)
    kinds = "compile takes bytes (the binary format) or str (the text format)"
    assert str(caught.value) == f"{kinds}, not {type(source).__name__}"


def test_a_refused_text_is_explained_on_printable_lines(host):
    """What the message quotes of a stranger's text cannot drive a terminal, and is cut."""
    message = refused(host, "(module \x1b[31m" + "x" * 100_000 + ")").message
    assert "\x1b" not in message
    assert len(message) < 5_000


def test_the_host_goes_on_after_a_refusal(host):
    """A bad module costs nobody else anything."""
    refused(host, b"garbage")
    assert host.compile(BINARY).exports() == ["memory", "add"]


def padded(size):
    """A valid binary module of exactly `size` bytes: a custom section of zeros."""
    body = size - len(HEADER) - 1 - 5
    section = b"\0" + bytes([0x80 | body & 0x7F, 0x80 | body >> 7 & 0x7F, 0x80 | body >> 14 & 0x7F, 0x80, 0])
    return HEADER + section + b"\x01p" + bytes(body - 2)


def test_module_bytes_just_under_and_just_over(host_factory):
    """A source of exactly `module_bytes` compiles; one byte more is a CompileError that tells the limit."""
    limit = 10_000
    host = host_factory(module_bytes=limit)
    assert len(padded(limit)) == limit
    assert host.compile(padded(limit)).exports() == []
    assert refused(host, padded(limit + 1)).limit == limit
    assert host.compile("(module)" + " " * (limit - 8)).exports() == []
    assert refused(host, "(module)" + " " * (limit - 7)).limit == limit
