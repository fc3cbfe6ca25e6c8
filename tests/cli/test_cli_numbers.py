"""Numbers typed at a shell and printed back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox import F32, F64, I32, I64, WasmVal
from pdsandbox.cli.numbers import parse, plain, show

values = st.one_of(
    st.builds(I32, st.integers(-(2**31), 2**31 - 1)),
    st.builds(I64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(F32, st.integers(0, 2**32 - 1)),
    st.builds(F64, st.integers(0, 2**64 - 1)),
)


@given(values)
def test_what_is_printed_can_be_typed(value: WasmVal) -> None:
    """Every value survives printing and typing, NaN payloads included, to the bit."""
    assert parse(type(value).__name__.lower(), show(value)) == value


@given(values)
def test_json_has_the_bits(value: WasmVal) -> None:
    """JSON carries every value exactly: an integer as a number, a float with its bits."""
    fields = plain(value)
    if isinstance(value, I32 | I64):
        assert fields["value"] == value.value
    else:
        assert int(fields["bits"], 16) == value.bits
        assert isinstance(fields["value"], float) == (abs(value.to_float()) < float("inf"))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("i32", "-1", I32(-1)),
        ("i32", "+7", I32(7)),
        ("i32", "007", I32(7)),
        ("i32", "0xffffffff", I32(-1)),
        ("i32", "0X7F", I32(127)),
        ("i32", "-0x80000000", I32(-(2**31))),
        ("i64", "0xffffffffffffffff", I64(-1)),
        ("i64", "-9223372036854775808", I64(-(2**63))),
        ("f32", "0.1", F32(0x3DCCCCCD)),
        ("f32", "1e40", F32.from_float(float("inf"))),
        ("f32", "NaN", F32(0x7FC00000)),
        ("f32", "nan:0x1", F32(0x7F800001)),
        ("f64", "-inf", F64.from_float(float("-inf"))),
        ("f64", "-0.0", F64(1 << 63)),
        ("f64", "5.", F64.from_float(5.0)),
        ("f64", "-nan:0x4", F64(0xFFF0000000000004)),
    ],
)
def test_reads(kind: str, text: str, value: WasmVal) -> None:
    """Decimal, hexadecimal as a bit pattern, and Python's floats."""
    assert parse(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("i32", "4294967295", "out of range for i32 (-2147483648 to 2147483647); as a bit pattern it is 0xffffffff"),
        ("i32", "0x100000000", "out of range for i32"),
        ("i32", "-2147483649", "out of range for i32"),
        ("i32", "1.0", "'1.0' is not an i32"),
        ("i32", "", "'' is not an i32"),
        ("i32", "1_000", "is not an i32"),
        ("i32", " 1", "is not an i32"),
        ("i32", "٣", "is not an i32"),
        ("i64", "9" * 5000, "is not an i64"),
        ("i64", "0x" + "f" * 17, "is not an i64"),
        ("f32", "x", "'x' is not an f32"),
        ("f64", "1_0.0", "is not an f64"),
        ("f64", "1" * 401, "is not an f64"),
        ("f32", "nan:0x800000", "the payload of an f32 NaN is 0x1 to 0x7fffff"),
        ("f64", "nan:0x0", "the payload of an f64 NaN"),
        ("f64", "\x1b[31m", "'\\x1b[31m' is not an f64"),
    ],
)
def test_refuses(kind: str, text: str, why: str) -> None:
    """What is no number of the type is refused with the reason, in a short printable line."""
    with pytest.raises(ValueError) as refused:
        parse(kind, text)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200
