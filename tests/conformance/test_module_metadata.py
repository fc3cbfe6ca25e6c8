"""What a module tells about itself: exports, imports, hash, signatures; odd names, many of them, odd types."""

from __future__ import annotations

import hashlib

import pytest
import wasmtime

from pdsandbox import (
    I32,
    I64,
    CallError,
    Cause,
    FuncType,
    GlobalType,
    HostFunction,
    MemoryType,
    TableType,
    TagType,
    WasmImports,
)


def test_exports_are_in_declaration_order(host):
    """All kinds of exports, in the order in which the module lists them."""
    module = host.compile("""(module
      (func (export "z")) (memory (export "memory") 1) (table (export "t") 1 funcref)
      (global (export "g") i32 (i32.const 1)) (func (export "a")) (tag (export "e")))""")
    listed = module.exports()
    assert sorted(listed) == ["a", "e", "g", "memory", "t", "z"]
    explicit = host.compile("""(module (func $f) (memory $m 1) (global $g i32 (i32.const 1))
      (export "z" (func $f)) (export "m" (memory $m)) (export "a" (func $f)) (export "g" (global $g)))""")
    assert explicit.exports() == ["z", "m", "a", "g"]


def test_exports_cannot_be_changed_through_the_list(host):
    """Each call gives a list of its own."""
    module = host.compile('(module (func (export "f")))')
    module.exports().clear()
    assert module.exports() == ["f"]


def test_imports_tell_module_name_and_type(host):
    """Every kind of import, in order, with its type as data."""
    module = host.compile("""(module
      (import "env" "f" (func (param i32 f64) (result i64)))
      (import "env" "f" (func))
      (import "m" "memory" (memory 1 5))
      (import "m" "table" (table 2 funcref))
      (import "m" "const" (global i64))
      (import "m" "var" (global (mut f32)))
      (import "m" "tag" (tag (param i32))))""")
    assert [(each.module, each.name, each.type) for each in module.imports()] == [
        ("env", "f", FuncType(("i32", "f64"), ("i64",))),
        ("env", "f", FuncType((), ())),
        ("m", "memory", MemoryType(1, 5)),
        ("m", "table", TableType("funcref", 2)),
        ("m", "const", GlobalType("i64", mutable=False)),
        ("m", "var", GlobalType("f32", mutable=True)),
        ("m", "tag", TagType(("i32",))),
    ]


def test_sha256_is_that_of_the_source_as_given(host):
    """Of the bytes, or of the text's UTF-8 encoding."""
    text = '(module (func (export "ünïcödé")))'
    binary = bytes(wasmtime.wat2wasm(text))
    assert host.compile(binary).sha256 == hashlib.sha256(binary).hexdigest()
    assert host.compile(text).sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_signature_tells_the_type_of_an_exported_function(host):
    """Parameters and results as a `FuncType`."""
    module = host.compile('(module (func (export "f") (param i32 i64 f32 f64) (result f64 i32) unreachable))')
    assert module.signature("f") == FuncType(("i32", "i64", "f32", "f64"), ("f64", "i32"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", 'no export named "nope"'),
        ("", 'no export named ""'),
        ("F", 'no export named "F"'),
        ("\ud800", 'no export named "\\ud800"'),
        ("memory", 'export "memory" is not a function'),
        (5, "an export's name is a str, not int"),
        (["f"], "an export's name is a str, not list"),
    ],
    ids=ascii,
)
def test_signature_of_what_is_no_exported_function(host, name, message):
    """An unknown name, an export that is no function, and what is no name are CallErrors that say which."""
    module = host.compile('(module (func (export "f")) (memory (export "memory") 1))')
    with pytest.raises(CallError) as caught:
        module.signature(name)
    assert (caught.value.cause, caught.value.message) == (Cause.USAGE, message)


LONG = "n" * 100_000
NAMES = ["", " ", "ünïcödé", "日本語", "🙂", "a\nb", "a\0b", '"quoted"', "\\", "\u202egnirts", "\x1b[31m", LONG]


def escaped(name):
    """`name` as a string of the text format."""
    return "".join(f"\\{byte:02x}" for byte in name.encode())


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_any_name_can_be_exported_and_called(host, name):
    """Empty, Unicode, control characters, 100 KB: listed as it is, and callable."""
    module = host.compile(f'(module (func (export "{escaped(name)}") (result i32) (i32.const 7)))')
    assert module.exports() == [name]
    assert module.signature(name) == FuncType((), ("i32",))
    with host.instantiate(module) as instance:
        assert instance.call(name, []) == [I32(7)]
        assert instance.func(name)() == 7


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_any_name_can_be_imported(host, instantiate, name):
    """The same names as module and name of an import."""
    source = f"""(module (import "{escaped(name)}" "{escaped(name)}" (func $f (result i32)))
      (func (export "f") (result i32) (call $f)))"""
    given = WasmImports(functions={(name, name): HostFunction(lambda caller: 9, results=("i32",))})
    assert instantiate(source, given).call("f", []) == [I32(9)]


def test_ten_thousand_exports(host, instantiate):
    """Listed in order, and each can be called; a hundred exports share a function, which is what takes compiling."""
    count, each = 10_000, 100
    exports = [f'(export "f{i}" (func $g{i // each}))' for i in range(count)]
    functions = [f"(func $g{i} (result i32) (i32.const {i}))" for i in range(count // each)]
    source = f"(module {' '.join(exports)} {' '.join(functions)})"
    assert host.compile(source).exports() == [f"f{i}" for i in range(count)]
    instance = instantiate(source)
    for i in (0, each - 1, each, count // 2, count - 1):
        assert instance.call(f"f{i}", []) == [I32(i // each)]


UNSUPPORTED = {
    "v128": ("(param v128)", "v128"),
    "v128-result": ("(result v128)", "v128"),
    "funcref": ("(param i32 funcref)", "funcref"),
    "externref": ("(result externref)", "externref"),
    "anyref": ("(param anyref)", "ref"),
    "exnref": ("(param exnref)", "ref"),
    "i31ref": ("(param i32 (ref i31))", "ref"),
    "typed": ("(param (ref null $t))", "ref"),
    "gc": ("(param (ref null $s))", "ref"),
}


@pytest.mark.parametrize(("types", "named"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_other_types_load_and_calling_them_names_the_type(host, instantiate, types, named):
    """A signature with vectors or references is shown; only calling that export is an error, and it says why."""
    source = f"""(module (type $t (func)) (type $s (struct (field i32)))
      (func (export "odd") {types} unreachable) (func (export "ok") (result i32) (i32.const 42)))"""
    signature = host.compile(source).signature("odd")
    assert signature.unsupported == named
    instance = instantiate(source)
    args = [0] * len(signature.params)
    for attempt in (
        lambda: instance.call("odd", args),
        lambda: instance.call_many("odd", [args]),
        lambda: instance.func("odd")(*args),
    ):
        with pytest.raises(CallError, match=named) as caught:
            attempt()
        assert caught.value.cause is Cause.USAGE
    assert instance.call("ok", []) == [I32(42)]


def test_a_thousand_parameters_and_results(host, instantiate):
    """The most that WebAssembly allows arrives and comes back in order."""
    count = 1000
    types = " ".join(["i64"] * count)
    gets = "".join(f"(local.get {i})" for i in reversed(range(count)))
    instance = instantiate(f'(module (func (export "reversed") (param {types}) (result {types}) {gets}))')
    values = [I64(i << 40) for i in range(count)]
    assert instance.call("reversed", values) == values[::-1]


def test_a_module_can_be_instantiated_many_times(host):
    """Instances of one module have state of their own."""
    module = host.compile("""(module (global $n (mut i32) (i32.const 0))
      (func (export "next") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))""")
    with host.instantiate(module) as one, host.instantiate(module) as other:
        assert [one.func("next")() for _ in range(3)] == [1, 2, 3]
        assert other.func("next")() == 1
