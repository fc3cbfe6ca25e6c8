"""Slots: what is packed comes back bit for bit, and every wrong argument has its own `CallError`."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox import F32, F64, I32, I64, CallError, Cause
from pdsandbox.slots import SLOT_BYTES, Slots

CLASSES = {"i32": I32, "i64": I64, "f32": F32, "f64": F64}
VALUES = {
    "i32": st.integers(-(2**31), 2**31 - 1).map(I32),
    "i64": st.integers(-(2**63), 2**63 - 1).map(I64),
    "f32": st.integers(0, 2**32 - 1).map(F32),
    "f64": st.integers(0, 2**64 - 1).map(F64),
}
signatures = st.lists(st.sampled_from(list(VALUES)), max_size=20)
calls = signatures.flatmap(lambda types: st.tuples(st.just(types), st.tuples(*[VALUES[t] for t in types])))


def plain(value):
    """The int or float that a user would write for this value."""
    return value.value if isinstance(value, I32 | I64) else value.to_float()


def decoded(slots, buffer, offset=0):
    """The values that `buffer` has there."""
    return slots.make(slots.raw_values(buffer, offset))


def error(types, args):
    """The message of the CallError."""
    with pytest.raises(CallError) as caught:
        Slots(types).encode(args)
    assert caught.value.cause is Cause.USAGE
    return caught.value.message


@given(calls)
def test_wasm_values_round_trip_bit_for_bit(call):
    """Any signature, any bit pattern: what was encoded is decoded, as a list and as a tuple given."""
    types, args = call
    slots = Slots(types)
    for given_args in (list(args), args):
        raw = slots.encode(given_args)
        assert len(raw) == slots.nbytes == len(types) * SLOT_BYTES
        assert decoded(slots, raw) == list(args)


@given(calls, st.integers(0, 40))
def test_decoding_starts_at_the_offset(call, offset):
    """Slots may lie anywhere in a buffer."""
    types, args = call
    slots = Slots(types)
    buffer = bytearray(b"\xaa" * offset + slots.encode(args) + b"\xbb" * 3)
    assert decoded(slots, buffer, offset) == list(args)
    assert decoded(slots, memoryview(buffer), offset) == list(args)


@given(calls)
def test_each_slot_is_the_value_little_endian_and_padded_with_zeros(call):
    """The layout of wasmtime's raw values: payload first, nothing left over from before."""
    types, args = call
    raw = Slots(types).encode(args)
    for index, value in enumerate(args):
        slot = raw[index * SLOT_BYTES : (index + 1) * SLOT_BYTES]
        payload = value.value if isinstance(value, I32 | I64) else value.bits
        size = 4 if isinstance(value, I32 | F32) else 8
        assert slot == (payload % (1 << 8 * size)).to_bytes(size, "little").ljust(SLOT_BYTES, b"\0")


@given(calls)
def test_plain_numbers_mean_the_same_as_wasm_values(call):
    """Ints and floats are encoded as the values of the signature's types; a NaN stays a NaN."""
    types, args = call
    slots = Slots(types)
    back = decoded(slots, slots.encode([plain(value) for value in args]))
    for value, other in zip(args, back, strict=True):
        assert type(value) is type(other)
        assert value == other or (math.isnan(plain(value)) and math.isnan(plain(other)))


@given(calls)
def test_decode_plain_is_the_plain_numbers(call):
    """`decode_plain` agrees with the values' own conversion, NaNs aside bit for bit."""
    types, args = call
    slots = Slots(types)
    for number, value in zip(slots.decode_plain(slots.encode(args)), args, strict=True):
        expected = plain(value)
        assert type(number) is type(expected)
        if not (isinstance(expected, float) and math.isnan(expected)):
            assert (
                struct.pack("<d", number) == struct.pack("<d", expected)
                if isinstance(number, float)
                else number == expected
            )


@given(calls.filter(lambda call: call[0]))
def test_host_function_results_round_trip(call):
    """One result is given bare, several as a tuple or list."""
    types, args = call
    slots = Slots(types)
    value = args[0] if len(args) == 1 else args
    assert decoded(slots, slots.encode_results(value)) == list(args)
    if len(args) > 1:
        assert slots.encode_results(list(args)) == slots.encode_results(args)


def test_no_result_is_none_and_nothing_else():
    """A function without results must return None."""
    assert Slots(()).encode_results(None) == b""
    for value in (0, (), []):
        with pytest.raises(CallError, match="expected no result, got"):
            Slots(()).encode_results(value)


@pytest.mark.parametrize(
    ("types", "args", "message"),
    [
        ((), (1,), "expected 0 arguments, got 1"),
        (("i32",), (), "expected 1 argument, got 0"),
        (("i32",), (1, 2), "expected 1 argument, got 2"),
        (("i32", "f64"), (1,), "expected 2 arguments, got 1"),
        (("i32",), (2**31,), "argument 0: 2147483648 is out of range for i32 (-2147483648 to 2147483647)"),
        (("i32",), (-(2**31) - 1,), "argument 0: -2147483649 is out of range for i32 (-2147483648 to 2147483647)"),
        (
            ("i32", "i64"),
            (0, 2**63),
            "argument 1: 9223372036854775808 is out of range for i64 (-9223372036854775808 to 9223372036854775807)",
        ),
        (
            ("i32",),
            (10**5000,),
            "argument 0: an integer of 16610 bits is out of range for i32 (-2147483648 to 2147483647)",
        ),
        (("f64",), (10**400,), "argument 0: an integer of 1329 bits is out of range for f64"),
        (("f32",), (10**400,), "argument 0: an integer of 1329 bits is out of range for f32"),
        (("i32",), (1.0,), "argument 0: expected i32, got float"),
        (("i32",), ("1",), "argument 0: expected i32, got str"),
        (("i64", "i32"), (1, None), "argument 1: expected i32, got NoneType"),
        (("f32",), ("1",), "argument 0: expected f32, got str"),
        (("f64",), (1j,), "argument 0: expected f64, got complex"),
        (("i32",), (I64(1),), "argument 0: expected i32, got I64"),
        (("i64",), (I32(1),), "argument 0: expected i64, got I32"),
        (("f32",), (F64(0),), "argument 0: expected f32, got F64"),
        (("f64",), (I32(0),), "argument 0: expected f64, got I32"),
        (("i32",), 5, "arguments must be a list or tuple, not int"),
        (("i32",), None, "arguments must be a list or tuple, not NoneType"),
    ],
)
def test_wrong_arguments_say_which_and_how(types, args, message):
    """The message names the argument's index, what was expected and what was given."""
    assert error(types, args) == message


@pytest.mark.parametrize("extra", [I64(1), F32(0)])
def test_wrong_types_are_found_behind_right_ones_in_a_list(extra):
    """The fast path for lists of values of the right types lets nothing else through."""
    assert error(("i32", "i32"), [I32(1), extra]) == f"argument 1: expected i32, got {type(extra).__name__}"


@pytest.mark.parametrize(
    ("types", "value", "message"),
    [
        (("i32",), None, "result 0: expected i32, got NoneType"),
        (("i32",), (1,), "result 0: expected i32, got tuple"),
        (("i32",), 2**31, "result 0: 2147483648 is out of range for i32 (-2147483648 to 2147483647)"),
        (("i32", "i64"), (1,), "expected 2 results, got 1"),
        (("i32", "i64"), (1, 2, 3), "expected 2 results, got 3"),
        (("i32", "i64"), (1, "2"), "result 1: expected i64, got str"),
        (("i32", "i64"), 5, "expected a tuple of 2 results, got 5"),
        (("f32", "f64"), "ab", "expected a tuple of 2 results, got 'ab'"),
    ],
)
def test_wrong_results_say_which_and_how(types, value, message):
    """A host function's wrong results are told apart from wrong arguments."""
    with pytest.raises(CallError) as caught:
        Slots(types).encode_results(value)
    assert caught.value.message == message


@pytest.mark.parametrize("name", ["v128", "funcref", "externref", "ref"])
def test_other_types_are_refused_by_name(name):
    """A signature with what cannot cross the boundary is a CallError naming the type."""
    with pytest.raises(CallError, match=f"unsupported type {name}"):
        Slots(("i32", name))


def test_bools_are_ints_and_ints_are_floats():
    """As in Python's own numeric tower: True is 1, and an int may stand for a float."""
    assert decoded(Slots(("i32", "f64")), Slots(("i32", "f64")).encode((True, 3))) == [I32(1), F64.from_float(3.0)]


def test_f32_arguments_round_and_overflow_to_infinity():
    """A plain float for an f32 is rounded as IEEE 754 does, never refused."""
    assert decoded(Slots(("f32",)), Slots(("f32",)).encode((1e40,))) == [F32.from_float(math.inf)]
