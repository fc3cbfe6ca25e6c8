"""Guest traps: each has its code, one fixed sentence and frames, and the instance stays usable."""

from __future__ import annotations

import pytest

from pdsandbox import I32, Cause, Frame, Trap, TrapCode
from pdsandbox.errors import TRAP_SENTENCES

GUESTS = {
    "unreachable": TrapCode.UNREACHABLE,
    "divide_by_zero": TrapCode.INTEGER_DIVISION_BY_ZERO,
    "remainder_by_zero": TrapCode.INTEGER_DIVISION_BY_ZERO,
    "integer_overflow": TrapCode.INTEGER_OVERFLOW,
    "bad_conversion": TrapCode.BAD_CONVERSION_TO_INTEGER,
    "load_out_of_bounds": TrapCode.MEMORY_OUT_OF_BOUNDS,
    "store_out_of_bounds": TrapCode.MEMORY_OUT_OF_BOUNDS,
    "fill_out_of_bounds": TrapCode.MEMORY_OUT_OF_BOUNDS,
    "table_out_of_bounds": TrapCode.TABLE_OUT_OF_BOUNDS,
    "indirect_call_to_null": TrapCode.INDIRECT_CALL_TO_NULL,
    "indirect_call_mismatch": TrapCode.BAD_SIGNATURE,
    "null_reference": TrapCode.NULL_REFERENCE,
    "array_out_of_bounds": TrapCode.ARRAY_OUT_OF_BOUNDS,
    "array_too_large": TrapCode.ALLOCATION_TOO_LARGE,
    "cast_failure": TrapCode.CAST_FAILURE,
    "uncaught_exception": TrapCode.UNCAUGHT_EXCEPTION,
    "stack_bomb": TrapCode.STACK_OVERFLOW,
    "shouting_name": TrapCode.UNREACHABLE,
}


def trapped(instance, *call):
    """The Trap, whose class is `Trap` itself."""
    with pytest.raises(Trap) as caught:
        instance.call(*call)
    assert type(caught.value) is Trap
    assert caught.value.cause is Cause.GUEST_TRAP
    return caught.value


@pytest.mark.parametrize(("guest", "code"), GUESTS.items(), ids=GUESTS)
def test_a_trap_is_its_code_and_its_sentence(instantiate, wat, guest, code):
    """Exactly that, time after time, and the instance answers as before."""
    instance = instantiate(wat(guest))
    for _ in range(3):
        error = trapped(instance, "run", [])
        assert error.trap_code is code
        assert error.message == TRAP_SENTENCES[code]
        assert str(error) == f"WASM trap: {TRAP_SENTENCES[code]}"
        assert instance.alive
        assert instance.call("ok", []) == [I32(42)]


def test_a_trap_without_a_code(instantiate, wat):
    """What the engine has no code for is one fixed sentence as well: here, a heap of the collector's that is full."""
    instance = instantiate(wat("gc_bomb"))
    for _ in range(2):
        error = trapped(instance, "run", [])
        assert (error.trap_code, error.message) == (None, "stopped by the engine")
        assert instance.call("ok", []) == [I32(42)]


@pytest.mark.parametrize("guest", GUESTS)
def test_a_trap_has_frames(instantiate, wat, guest):
    """The backtrace is data: plain, hashable, and not longer than anybody would read."""
    frames = trapped(instantiate(wat(guest)), "run", []).frames
    assert isinstance(frames, tuple)
    assert 1 <= len(frames) <= 1000
    assert all(isinstance(frame, Frame) for frame in frames)
    assert len(set(frames)) <= len(frames)


def test_frames_are_innermost_first_with_names_and_indices(instantiate, wat):
    """The innermost function comes first; indices count as the module does."""
    frames = trapped(instantiate(wat("unreachable")), "run", []).frames
    assert [frame.func_name for frame in frames] == ["inner", "middle", "outer"]
    assert [frame.func_index for frame in frames] == [1, 2, 3]
    assert frames[0].module_offset > 0


def test_names_that_the_guest_chose_are_only_in_the_frames(instantiate, wat):
    """No message, text or repr of a trap holds them; the frames have them as they are."""
    error = trapped(instantiate(wat("shouting_name")), "run", [])
    assert "SYSTEM OK" in error.frames[0].func_name
    for text in (error.message, str(error), repr(error)):
        assert "SYSTEM" not in text
        assert text.isprintable()


def test_a_very_long_name_is_harmless(instantiate):
    """100 KB of function name may be cut, and nothing else happens."""
    name = "n" * 100_000
    instance = instantiate(f'(module (func ${name} (export "run") unreachable))')
    frame = trapped(instance, "run", []).frames[0]
    assert name.startswith(frame.func_name)


def test_a_trap_without_a_name_section_has_frames_without_names(instantiate):
    """A stripped module is told by its indices."""
    instance = instantiate('(module (func) (func (export "run") unreachable))')
    frame = trapped(instance, "run", []).frames[0]
    assert (frame.func_index, frame.func_name) == (1, None)


def test_what_a_trapping_call_wrote_stays_written(instantiate):
    """A trap undoes nothing: state is as the guest left it."""
    instance = instantiate("""(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
      (func (export "n") (result i32) (global.get $n))
      (func (export "run")
        (global.set $n (i32.const 5)) (i32.store (i32.const 0) (i32.const 6)) unreachable))""")
    trapped(instance, "run", [])
    assert instance.call("n", []) == [I32(5)]
    assert instance.memory_read(0, 4) == b"\x06\0\0\0"


def test_errors_do_not_leak_from_one_instance_to_another(instantiate, wat):
    """A neighbour's call after a trap has its own answer."""
    bad, good = instantiate(wat("divide_by_zero")), instantiate(wat("unreachable"))
    trapped(bad, "run", [])
    assert good.call("ok", []) == [I32(42)]
    assert trapped(good, "run", []).trap_code is TrapCode.UNREACHABLE
    assert trapped(bad, "run", []).trap_code is TrapCode.INTEGER_DIVISION_BY_ZERO
