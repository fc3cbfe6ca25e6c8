import pytest

from pdsandbox.errors import CompileError
from pdsandbox.externs import FuncType, GlobalType, MemoryType, TableType, TagType
from pdsandbox.runtime.tables import tables_are_small


def types_of(bench, text):
    return {item.name: item.type for item in bench.compile(text).exports()}


def test_every_kind_of_value_type_is_named(bench):
    """v128, GC, typed and exception references are read without asking wasmtime what it aborts on."""
    text = """(module (type $s (struct)) (func (export "f")
        (param v128 externref funcref anyref eqref i31ref (ref null $s) exnref f32 f64 i32 i64)
        (result (ref null func)) ref.null func))"""
    assert types_of(bench, text)["f"] == FuncType(
        ("v128", "externref", "funcref", "ref", "ref", "ref", "ref", "ref", "f32", "f64", "i32", "i64"), ("funcref",)
    )


def test_memories_globals_tables_and_tags(bench):
    """Everything that is not a function is described too, memory64 included."""
    text = """(module (memory (export "m") 1 5) (memory (export "m64") i64 2)
        (global (export "g") (mut v128) (v128.const i64x2 0 0)) (global (export "c") i32 (i32.const 1))
        (table (export "t") 3 funcref) (table (export "u") 3 10 externref) (tag (export "x") (param i32 i64)))"""
    assert types_of(bench, text) == {
        "m": MemoryType(1, 5),
        "m64": MemoryType(2, None, is_64=True),
        "g": GlobalType("v128", True),
        "c": GlobalType("i32", False),
        "t": TableType("funcref", 3),
        "u": TableType("externref", 3, 10),
        "x": TagType(("i32", "i64")),
    }


@pytest.mark.parametrize("limits", ["i64 3 0x100000005", "i64 0x100000000", "i64 0 0xffffffffffffffff"])
def test_a_huge_64_bit_table_does_not_abort_the_process(bench, limits):
    """wasmtime's C API panics on such limits: they are left out."""
    text = f'(module (table (export "t") {limits} funcref))'
    assert types_of(bench, text) == {"t": TableType("funcref", 0)}
    text = f'(module (import "a" "b" (table {limits} funcref)))'
    assert bench.compile(text).imports()[0].type == TableType("funcref", 0)


def test_the_table_scan_reads_past_everything_else(bench):
    """Other imports, initialised tables and typed elements do not hide a table's limits."""
    text = """(module (type $s (struct)) (import "a" "f" (func (param i32))) (import "a" "g" (global (ref null $s)))
        (import "a" "m" (memory 1 2)) (import "a" "x" (tag)) (import "a" "t" (table 1 (ref null $s)))
        (func $f) (table (export "t") 2 (ref func) (ref.func $f)) (table 4 (ref null $s)) (elem declare func $f))"""
    assert types_of(bench, text)["t"] == TableType("ref", 2)


@pytest.mark.parametrize(
    "junk", [b"", b"\x04", b"\x04\x7f", b"\x02\x05\x01\x01\x61\x01", b"\x04\x03\x01\x70\xff", b"\x04" + b"\x80" * 40]
)
def test_the_table_scan_says_no_when_in_doubt(junk):
    """Whatever is cut or unknown counts as huge; nothing but an answer comes out."""
    assert tables_are_small(b"\0asm\1\0\0\0" + junk) is (junk == b"")


def test_a_thousand_results(bench):
    """Long signatures are read, and called, whole."""
    text = '(module (func (export "f") (result' + " i32" * 1000 + ")" + " i32.const 7" * 1000 + "))"
    assert types_of(bench, text)["f"] == FuncType((), ("i32",) * 1000)
    assert [v.value for v in bench.call(bench.guest(text), "f")] == [7] * 1000


def test_ten_thousand_exports_in_order(bench):
    """Names come in declaration order, and lookups go by name without listing them."""
    text = "(module" + "".join(f'(func (export "f{i}") (result i32) i32.const {i})' for i in range(10_000)) + ")"
    assert [item.name for item in bench.compile(text).exports()] == [f"f{i}" for i in range(10_000)]
    assert bench.call(bench.guest(text), "f9999")[0].value == 9999


@pytest.mark.parametrize("name", ["", "é", "\U0001f600", "a\\00b", "x" * 100_000])
def test_odd_names(bench, name):
    """Empty, Unicode, NUL and 100 KB names are exported and called like any other."""
    text = f'(module (func (export "{name}") (result i32) i32.const 1))'
    real = name.replace("\\00", "\0")
    assert list(types_of(bench, text)) == [real]
    assert bench.call(bench.guest(text), real)[0].value == 1


def test_an_artifact_loads_from_any_buffer(bench):
    """bytes, bytearray and a memoryview do; what is no artifact is a CompileError."""
    module = bench.compile('(module (import "a" "b" (func)) (func (export "f")))')
    artifact = module.serialize()
    for buffer in (artifact, bytearray(artifact), memoryview(artifact)):
        loaded = bench.engine.deserialize(buffer)
        assert loaded.exports() == module.exports()
        assert loaded.imports() == module.imports()
        loaded.close()
        loaded.close()
    with pytest.raises(CompileError, match="cannot be loaded"):
        bench.engine.deserialize(b"junk")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"", "empty"),
        (b"(module)", "pass the text format as str"),
        (b"\n  ;; hello", "pass the text format as str"),
        (b"\0as", "truncated"),
        (b"\0asm\1\0", "truncated"),
        (b"\0asm\x0d\0\1\0", "component"),
        (b"\0asm\2\0\0\0", "version 0x00000002"),
        (b"MZ", "does not start with"),
        (b"\0asm\1\0\0\0\xff", "malformed section id"),
    ],
)
def test_what_is_no_module(bench, source, text):
    """Each kind of wrong binary gets its own plain answer."""
    with pytest.raises(CompileError, match=text):
        bench.engine.compile(source, text=False)


def test_compile_messages_are_one_safe_line(bench):
    """What the module chose cannot write escapes or lines into the message, nor make it long."""
    with pytest.raises(CompileError) as caught:
        bench.engine.compile(('(module (func (export "a\u202e\x07") (call $' + "x" * 5000 + ")))").encode(), text=True)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 1001
