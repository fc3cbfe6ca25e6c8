"""Instantiating: what links, what does not, and what a start function can end in."""

from __future__ import annotations

import pytest

from pdsandbox import (
    I32,
    Cause,
    EngineConfig,
    FuelExhausted,
    HostFunction,
    InstantiationError,
    TrapCode,
    WasmError,
    WasmImports,
)
from pdsandbox.errors import TRAP_SENTENCES


def refused(make, cause=Cause.LINK):
    """The InstantiationError that `make()` raises."""
    with pytest.raises(InstantiationError) as caught:
        make()
    assert caught.value.cause is cause
    assert str(caught.value).startswith("WASM instantiation error: ")
    return caught.value


def test_imports_may_be_left_out(host):
    """A module without imports needs no `WasmImports`, nor does one that is content with the stubs."""
    with host.instantiate(host.compile('(module (func (export "f")))')) as instance:
        assert instance.call("f", []) == []
    with host.instantiate(host.compile("(module)"), None) as instance:
        assert instance.alive
    module = host.compile('(module (import "env" "pd_log" (func (param i32 i32 i32))))')
    with host.instantiate(module) as instance:
        assert instance.alive


@pytest.mark.parametrize(
    ("imported", "type_"),
    [
        (("env", "nope"), "(func)"),
        (("pd", "pd_sendd"), "(func)"),
        (("other", "pd_log"), "(func (param i32 i32 i32))"),
        (("wasi_snapshot_preview1", "fd_write"), "(func (param i32 i32 i32 i32) (result i32))"),
        (("env", "memory"), "(memory 1)"),
        (("env", "table"), "(table 1 funcref)"),
        (("env", "global"), "(global i32)"),
        (("env", "tag"), "(tag)"),
    ],
)
def test_a_missing_import_is_named(instantiate, imported, type_):
    """What nobody offers is told by module and name; WASI is not granted by default."""
    error = refused(lambda: instantiate(f'(module (import "{imported[0]}" "{imported[1]}" {type_}))', WasmImports()))
    assert imported[0] in error.message
    assert imported[1] in error.message


@pytest.mark.parametrize(
    "type_",
    [
        "(func)",
        "(func (param i32 i32))",
        "(func (param i32 i32 i64))",
        "(func (param i32 i32 i32) (result i32))",
        "(memory 1)",
    ],
)
def test_a_mistyped_import_is_named(instantiate, type_):
    """An import whose type is not the offer's is refused, and the message names it."""
    error = refused(lambda: instantiate(f'(module (import "env" "pd_log" {type_}))'))
    assert "env" in error.message
    assert "pd_log" in error.message


def test_a_mistyped_host_function_is_named(instantiate):
    """The user's own functions are checked like the built-in ones."""
    given = WasmImports(functions={("env", "f"): HostFunction(lambda caller, x: x, params=("i32",), results=("i32",))})
    error = refused(lambda: instantiate('(module (import "env" "f" (func (param i64) (result i32))))', given))
    assert "f" in error.message


def test_a_name_in_a_message_is_escaped_and_cut(instantiate):
    """A module's author cannot drive the terminal of who reads the error."""
    name = "\\1b[2J\\0a" + "x" * 50_000
    message = refused(lambda: instantiate(f'(module (import "env" "{name}" (func)))')).message
    assert message.isprintable()
    assert len(message) < 2_000


@pytest.mark.parametrize("guest", ["big_memory_minimum", "big_memory64_minimum", "big_table_minimum", "many_memories"])
def test_what_is_declared_above_a_limit(instantiate, wat, guest):
    """A memory or table above its limit, or a memory too many, is refused."""
    refused(lambda: instantiate(wat(guest)))


@pytest.mark.parametrize(
    ("guest", "code"),
    [
        ("start_trap", TrapCode.UNREACHABLE),
        ("start_stack_bomb", TrapCode.STACK_OVERFLOW),
        ("data_segment_out_of_bounds", TrapCode.MEMORY_OUT_OF_BOUNDS),
        ("element_segment_out_of_bounds", TrapCode.TABLE_OUT_OF_BOUNDS),
    ],
)
def test_a_trap_while_instantiating(instantiate, wat, guest, code):
    """It is an InstantiationError that carries the trap code; the sentence is in its message."""
    error = refused(lambda: instantiate(wat(guest)), Cause.GUEST_TRAP)
    assert error.trap_code is code
    assert TRAP_SENTENCES[code] in error.message


def test_running_out_of_fuel_while_instantiating_keeps_its_class(host_factory, wat):
    """A start function that never ends is `FuelExhausted`."""
    host = host_factory(fuel=100_000)
    module = host.compile(wat("start_loop"))
    with pytest.raises(FuelExhausted) as caught:
        host.instantiate(module)
    assert caught.value.cause is Cause.FUEL


def test_a_start_function_may_call_the_host(instantiate, wat):
    """Callbacks work while instantiating."""
    logged = []
    instance = instantiate(wat("start_host_call"), WasmImports(pd_log=lambda *args: logged.append(args)))
    assert logged == [(3, b"started")]
    assert instance.call("ok", []) == [I32(42)]


def test_a_host_function_that_raises_while_instantiating(instantiate, wat):
    """The cause is HOST_FUNCTION, and the original is chained."""
    original = KeyError("secret")

    def raises(level, message):
        raise original

    error = refused(lambda: instantiate(wat("start_host_call"), WasmImports(pd_log=raises)), Cause.HOST_FUNCTION)
    assert error.__cause__ is original


def test_a_bad_pointer_while_instantiating(instantiate, wat):
    """A pointer outside the memory is told by its cause, and the callback never sees it."""
    logged = []
    refused(
        lambda: instantiate(wat("start_bad_pointer"), WasmImports(pd_log=lambda *args: logged.append(args))),
        Cause.MEMORY,
    )
    assert logged == []


def test_a_module_of_another_host(host, host_factory):
    """A module belongs to the host that compiled it."""
    other = host_factory()
    module = other.compile("(module)")
    with pytest.raises(InstantiationError) as caught:
        host.instantiate(module)
    assert caught.value.cause in (Cause.USAGE, Cause.LINK)


def test_what_is_no_module(host):
    """Bytes instead of a module, or imports that are none, are refused at once."""
    with pytest.raises((TypeError, InstantiationError)):
        host.instantiate(b"\0asm\x01\0\0\0")
    with pytest.raises((TypeError, InstantiationError)):
        host.instantiate(host.compile("(module)"), {("env", "f"): print})


def test_what_is_no_wasi(host):
    """`wasi=` that cannot be granted is refused by name, not ignored."""
    module = host.compile("(module)")
    with pytest.raises((TypeError, ValueError, NotImplementedError, WasmError), match=r"(?i)wasi"):
        host.instantiate(module, WasmImports(), wasi=object())


def test_a_failed_instantiation_costs_nobody_anything(host, instantiate, wat):
    """The host, and another instance of it, go on."""
    neighbour = instantiate(wat("unreachable"))
    refused(lambda: instantiate(wat("start_trap")), Cause.GUEST_TRAP)
    refused(lambda: instantiate(wat("many_memories")))
    assert neighbour.call("ok", []) == [I32(42)]
    assert instantiate(wat("unreachable")).call("ok", []) == [I32(42)]


def test_several_mebibytes_of_data_segments(instantiate):
    """Large data segments are copied whole."""
    size = 3 << 20
    instance = instantiate(f"""(module (memory (export "memory") {2 * size >> 16})
      (data (i32.const {size}) "{"x" * size}"))""")
    assert instance.memory_read(size - 1, size + 1) == b"\0" + b"x" * size


@pytest.mark.parametrize("fuel", [True, False], ids=["metered", "unmetered"])
@pytest.mark.parametrize("interruptible", [True, False], ids=["interruptible", "plain"])
def test_every_engine_configuration_works(host_factory, instantiate, fuel, interruptible):
    """Metering changes no answer."""
    host = host_factory(engine=EngineConfig(fuel=fuel, interruptible=interruptible))
    source = '(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
    assert instantiate(source, on=host).call("add", [1, 2]) == [I32(3)]
