import pytest

from pdsandbox.errors import TRAP_SENTENCES, Cause, FuelExhausted, InstantiationError, Trap, TrapCode
from pdsandbox.runtime.engine import Engine

TRAPS = {
    TrapCode.UNREACHABLE: ("", "unreachable"),
    TrapCode.STACK_OVERFLOW: ("", "call $f"),
    TrapCode.MEMORY_OUT_OF_BOUNDS: ("(memory 1)", "i32.const -1 i32.load drop"),
    TrapCode.HEAP_MISALIGNED: ("(memory 1)", "i32.const 1 i32.atomic.load drop"),
    TrapCode.TABLE_OUT_OF_BOUNDS: ("(table 1 funcref)", "i32.const 9 table.get 0 drop"),
    TrapCode.INDIRECT_CALL_TO_NULL: ("(table 1 funcref)", "i32.const 0 call_indirect"),
    TrapCode.BAD_SIGNATURE: (
        "(table 1 funcref) (elem (i32.const 0) $f)",
        "i32.const 0 call_indirect (result i32) drop",
    ),
    TrapCode.INTEGER_OVERFLOW: ("", "i32.const 0x80000000 i32.const -1 i32.div_s drop"),
    TrapCode.INTEGER_DIVISION_BY_ZERO: ("", "i32.const 1 i32.const 0 i32.div_s drop"),
    TrapCode.BAD_CONVERSION_TO_INTEGER: ("", "f32.const nan i32.trunc_f32_s drop"),
    TrapCode.ATOMIC_WAIT_NON_SHARED_MEMORY: (
        "(memory 1)",
        "i32.const 0 i32.const 0 i64.const 0 memory.atomic.wait32 drop",
    ),
    TrapCode.NULL_REFERENCE: ("", "ref.null func ref.as_non_null drop"),
    TrapCode.ARRAY_OUT_OF_BOUNDS: (
        "(type $a (array i32))",
        "i32.const 3 array.new_default $a i32.const 7 array.get $a drop",
    ),
    TrapCode.ALLOCATION_TOO_LARGE: ("(type $a (array i64))", "i32.const 0x7fffffff array.new_default $a drop"),
    TrapCode.CAST_FAILURE: (
        "(type $s (struct)) (type $a (array i64))",
        "i32.const 3 array.new_default $a ref.cast (ref $s) drop",
    ),
    TrapCode.UNCAUGHT_EXCEPTION: ("(tag $t (param i32))", "i32.const 1 throw $t"),
}


def module(fields, body):
    return f'(module {fields} (func $f (export "f") {body}) (func (export "ok") (result i32) i32.const 5))'


@pytest.mark.parametrize("code", TRAPS, ids=lambda code: code.name)
def test_trap_has_its_code_and_sentence_and_the_guest_lives_on(bench, code):
    """Each kind of trap is told apart by code, in one fixed sentence, and harms no later call."""
    guest = bench.guest(module(*TRAPS[code]))
    for _ in range(2):
        with pytest.raises(Trap) as caught:
            bench.call(guest, "f")
        assert type(caught.value) is Trap
        assert caught.value.trap_code is code
        assert caught.value.message == TRAP_SENTENCES[code]
        assert caught.value.cause is Cause.GUEST_TRAP
        assert caught.value.frames[0].func_name == "f"
        assert bench.call(guest, "ok")[0].value == 5


def test_trap_codes_have_wasmtimes_numbers():
    """Our enumeration agrees with the bindings of the tested version."""
    wasmtime = pytest.importorskip("wasmtime")
    for code in TrapCode:
        assert getattr(wasmtime.TrapCode, code.name).value == code.value


def test_frames_are_capped_and_their_names_cut(bench):
    """A deep recursion under a long name gives at most 64 frames with names of at most 256 characters."""
    name = "n" * 1000
    guest = bench.guest(f'(module (func ${name} (export "f") call ${name}))')
    with pytest.raises(Trap) as caught:
        bench.call(guest, "f")
    assert 0 < len(caught.value.frames) <= 64
    assert caught.value.frames[0].func_name == "n" * 256


def test_a_gc_heap_that_may_not_grow_is_a_trap_without_a_code(bench):
    """What the engine refuses without a code says so in a fixed sentence."""
    guest = bench.guest(module("(type $a (array i64))", "i32.const 0x3ffffff array.new_default $a drop"))
    with pytest.raises(Trap) as caught:
        bench.call(guest, "f")
    assert caught.value.trap_code is None
    assert caught.value.message == "stopped by the engine"
    assert bench.call(guest, "ok")[0].value == 5


def test_fuel_is_counted_and_ends_the_call(bench):
    """A loop runs out of its budget exactly; the guest stays usable, and the next call has its own budget."""
    guest = bench.guest(module("", "(loop (br 0))"))
    with pytest.raises(FuelExhausted) as caught:
        bench.call(guest, "f", fuel=1000)
    assert caught.value.cause is Cause.FUEL
    assert guest.last_fuel == 1000
    assert bench.call(guest, "ok")[0].value == 5
    assert 0 < guest.last_fuel < 10


def test_without_metering_nothing_is_counted(make_bench):
    """An engine that does not meter ignores the budget and reports 0."""
    bench = make_bench(fuel=False)
    guest = bench.guest(module("", ""))
    assert bench.call(guest, "ok", fuel=0)[0].value == 5
    assert guest.last_fuel == 0


def test_an_epoch_interrupts_a_host_call_loop(make_bench):
    """With an interruptible engine, incrementing the epoch ends a running guest with INTERRUPT, and only once."""
    from pdsandbox.runtime.guest import RawFunction

    bench = make_bench(interruptible=True)
    guest = bench.guest(
        """(module (import "a" "b" (func $b)) (func (export "f") (loop call $b (br 0)))
          (func (export "ok") (result i32) i32.const 5))""",
        lambda wanted, _guest: RawFunction(wanted.type, lambda _at: bench.engine.increment_epoch()),
    )
    for _ in range(2):
        with pytest.raises(Trap) as caught:
            bench.call(guest, "f", fuel=2**60)
        assert caught.value.trap_code is TrapCode.INTERRUPT
        assert bench.call(guest, "ok")[0].value == 5


@pytest.mark.parametrize("stack", [16 << 10, 4 << 20])
def test_every_stack_size_that_limits_allow_makes_an_engine(stack):
    """wasmtime aborts the process on a wasm stack above its async stack: both bounds are tried."""
    Engine(fuel=True, interruptible=False, stack_bytes=stack).close()


@pytest.mark.parametrize("bits", [0x7FA00001, 0xFFA12345, 0x7FC00000, 0x80000000])
def test_f32_bits_survive(bench, bits):
    """Signalling NaNs cross in both directions unchanged."""
    from pdsandbox.values import F32, F64

    text = """(module (func (export "f") (param f32) (result f32) local.get 0)
                      (func (export "d") (param f64) (result f64) local.get 0))"""
    guest = bench.guest(text)
    assert bench.call(guest, "f", F32(bits)) == [F32(bits)]
    assert bench.call(guest, "d", F64(bits << 32 | 1)) == [F64(bits << 32 | 1)]


@pytest.mark.parametrize(
    ("text", "message", "code", "cause"),
    [
        ("(func $f unreachable) (start $f)", "start function trapped: unreachable", TrapCode.UNREACHABLE, "GUEST_TRAP"),
        (
            '(memory 1) (data (i32.const 65535) "ab")',
            "active segment: out of b",
            TrapCode.MEMORY_OUT_OF_BOUNDS,
            "GUEST_TRAP",
        ),
        (
            "(table 1 funcref) (func $f) (elem (i32.const 1) $f)",
            "active segment: out of b",
            TrapCode.TABLE_OUT_OF_BOUNDS,
            "GUEST_TRAP",
        ),
        ("(memory 257)", "memory minimum size of 257 pages exceeds memory limits", None, "LINK"),
        ("(memory 1)" * 9, "memory count too high at 9", None, "LINK"),
        ("(table 1001 funcref)", "table minimum size of 1001 elements exceeds table limits", None, "LINK"),
        ('(import "a\\n" "\\e2\\80\\ae" (func))', 'missing import "a\\\\n"."\\\\u202e"', None, "LINK"),
        ('(import "a" "b" (global i32))', 'import "a"."b" is a global const i32; only functions', None, "LINK"),
    ],
)
def test_what_stops_an_instantiation(bench, text, message, code, cause):
    """Each reason is named; a trap keeps its code."""
    with pytest.raises(InstantiationError, match=message) as caught:
        bench.guest(f"(module {text})")
    assert caught.value.trap_code is code
    assert caught.value.cause is Cause[cause]


def test_limits_just_reached_are_fine(bench):
    """Memory, memories and table at exactly their limits instantiate."""
    bench.guest("(module (memory 256)" + "(memory 1)" * 7 + "(table 1000 funcref))")


def test_fuel_in_the_start_function_keeps_its_class(bench):
    """An endless start function is FuelExhausted, not InstantiationError."""
    with pytest.raises(FuelExhausted):
        bench.guest("(module (func $f (loop (br 0))) (start $f))", fuel=1000)
