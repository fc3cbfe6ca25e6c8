"""The four number types: bounds, exact bits, equality, immutability."""

from __future__ import annotations

import copy
import math
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox import F32, F64, I32, I64, WasmVal

BOUNDS = [(I32, -(2**31), 2**31 - 1), (I64, -(2**63), 2**63 - 1), (F32, 0, 2**32 - 1), (F64, 0, 2**64 - 1)]
CLASSES = [row[0] for row in BOUNDS]
NOT_INTEGERS = [1.0, 1.5, math.nan, math.inf, "1", b"1", None, [], 1j, ...]
SIGNALLING_F32, SIGNALLING_F64 = 0x7FA00001, 0x7FF4000000000001


def payload(value: WasmVal) -> int:
    return value.value if isinstance(value, I32 | I64) else value.bits


@pytest.mark.parametrize(("cls", "low", "high"), BOUNDS)
def test_both_bounds_fit_and_one_beyond_does_not(cls, low, high):
    """Exactly the range fits; the ValueError names the type and its bounds."""
    assert (payload(cls(low)), payload(cls(high))) == (low, high)
    for beyond in (low - 1, high + 1, 2**70, -(2**70)):
        with pytest.raises(ValueError, match=rf"{cls.__name__} .*{low} to {high}"):
            cls(beyond)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_what_is_no_integer_is_a_value_error(cls, value):
    """Nothing is rounded, parsed or truncated into an integer."""
    with pytest.raises(ValueError, match=cls.__name__):
        cls(value)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_integer_too_long_to_print_is_still_a_value_error(cls):
    """The message of a refused integer never needs its decimal digits."""
    with pytest.raises(ValueError, match=cls.__name__) as caught:
        cls(10**5000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("cls", CLASSES)
def test_whatever_has_an_index_is_taken_as_an_exact_int(cls):
    """Integers of other libraries (`__index__`) and bools become plain ints."""

    class Number:
        def __index__(self):
            return 7

    assert cls(Number()) == cls(7)
    assert type(payload(cls(Number()))) is int
    assert cls(True) == cls(1)
    assert type(payload(cls(True))) is int


def test_equality_and_hash_are_by_type_and_payload():
    """Equal payloads of different types are different values, and no value equals a plain number."""
    assert len({cls(1) for cls in CLASSES}) == 4
    for cls in CLASSES:
        assert cls(1) == cls(1)
        assert hash(cls(1)) == hash(cls(1))
        assert cls(1) != cls(2)
        assert cls(1) != 1
        assert all(cls(1) != other(1) for other in CLASSES if other is not cls)


def test_float_equality_is_equality_of_bits():
    """A NaN equals itself, its payload counts, and the two zeros differ."""
    assert F32(SIGNALLING_F32) == F32(SIGNALLING_F32)
    assert F32(0x7FC00000) != F32(0x7FC00001)
    assert F32.from_float(0.0) != F32.from_float(-0.0)
    assert F64(SIGNALLING_F64) == F64(SIGNALLING_F64)
    assert F64.from_float(0.0) != F64.from_float(-0.0)


@pytest.mark.parametrize("cls", CLASSES)
def test_values_are_immutable_and_small(cls):
    """No attribute can be set, added or deleted, and there is no `__dict__`."""
    value = cls(1)
    field = "value" if cls in (I32, I64) else "bits"
    for name in (field, "other"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(value, name, 2)
    with pytest.raises(AttributeError, match="immutable"):
        delattr(value, field)
    assert not hasattr(value, "__dict__")
    assert payload(value) == 1


@pytest.mark.parametrize(("cls", "low", "high"), BOUNDS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_and_copies_are_equal(cls, low, high, protocol):
    """Every bound, under every pickle protocol, comes back equal; so do copies."""
    for value in (cls(low), cls(high)):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.copy(value) == value
        assert copy.deepcopy(value) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_signalling_nans_survive_a_pickle(protocol):
    """The signalling bit is kept, which a trip through a Python float would set."""
    for value in (F32(SIGNALLING_F32), F64(SIGNALLING_F64)):
        assert pickle.loads(pickle.dumps(value, protocol)).bits == value.bits


def test_all_four_are_wasm_vals():
    """`WasmVal` names the four together and nothing else."""
    assert all(isinstance(cls(0), WasmVal) for cls in CLASSES)
    assert not isinstance(0, WasmVal)
    assert not isinstance(0.0, WasmVal)


@pytest.mark.parametrize("cls", CLASSES)
def test_repr_is_the_constructor(cls):
    """A value's repr evaluates to the value."""
    assert eval(repr(cls(77)), {cls.__name__: cls}) == cls(77)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (0.1, 0x3DCCCCCD),
        (1.0, 0x3F800000),
        (-0.0, 0x80000000),
        (1 + 2**-24, 0x3F800000),  # a tie, to even: down
        (1 + 3 * 2**-24, 0x3F800002),  # a tie, to even: up
        (1 + 2**-24 + 2**-40, 0x3F800001),
        (2.0**-149, 0x00000001),  # the smallest subnormal
        (2.0**-150, 0x00000000),  # a tie, to zero
        (5e-324, 0x00000000),
        (float.fromhex("0x1.fffffefffffffp127"), 0x7F7FFFFF),  # rounds down to the largest finite value
        (float.fromhex("0x1.ffffffp127"), 0x7F800000),  # the tie above it rounds to infinity
        (1e40, 0x7F800000),
        (-1e40, 0xFF800000),
        (math.inf, 0x7F800000),
        (-math.inf, 0xFF800000),
        (3, 0x40400000),
    ],
)
def test_f32_from_float_rounds_as_ieee_754_does(value, bits):
    """Nearest, ties to even, overflow to infinity."""
    assert F32.from_float(value).bits == bits


@pytest.mark.parametrize("cls", [F32, F64])
def test_nan_from_float_is_a_nan(cls):
    """A Python NaN becomes a NaN, and comes back as one."""
    assert math.isnan(cls.from_float(math.nan).to_float())


@pytest.mark.parametrize("cls", [F32, F64])
@pytest.mark.parametrize("value", ["1.0", None, 1j, [1.0], ...], ids=repr)
def test_from_float_takes_numbers_only(cls, value):
    """What is no real number is a ValueError."""
    with pytest.raises(ValueError, match=cls.__name__):
        cls.from_float(value)


@pytest.mark.parametrize("cls", [F32, F64])
def test_from_float_of_an_int_too_large_for_a_float_is_a_value_error(cls):
    """An int that no binary64 can hold is refused, not an OverflowError."""
    with pytest.raises(ValueError, match=cls.__name__):
        cls.from_float(10**400)


@given(st.floats())
def test_f64_from_float_keeps_the_bits(value):
    """`F64.from_float(x).to_float()` is x, bit for bit."""
    assert F64.from_float(value).bits == struct.unpack("<Q", struct.pack("<d", value))[0]
    assert struct.pack("<d", F64.from_float(value).to_float()) == struct.pack("<d", value)


@given(st.floats(width=32, allow_nan=False))
def test_f32_round_trips_what_it_can_hold(value):
    """A number that a binary32 holds comes back as itself."""
    back = F32.from_float(value).to_float()
    assert back == value
    assert math.copysign(1, back) == math.copysign(1, value)


@given(st.integers(0, 2**32 - 1))
def test_f32_holds_every_bit_pattern(bits):
    """All 2**32 patterns are kept as given."""
    assert F32(bits).bits == bits
    assert isinstance(F32(bits).to_float(), float)
