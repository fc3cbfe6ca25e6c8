"""Calls: what goes in and comes out, bit for bit."""

from __future__ import annotations

import math

import pytest

from pdsandbox import F32, F64, I32, I64

IDENTITY = """(module
  (func (export "i32") (param i32) (result i32) (local.get 0))
  (func (export "i64") (param i64) (result i64) (local.get 0))
  (func (export "f32") (param f32) (result f32) (local.get 0))
  (func (export "f64") (param f64) (result f64) (local.get 0))
  (func (export "none"))
  (func (export "one") (result i32) (i32.const -1))
  (func (export "four") (result i32 i64 f32 f64)
    (i32.const 1) (i64.const -2) (f32.const 0.5) (f64.const nan:0x4000000000001))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "takes_four") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
    (local.get 3) (local.get 2) (local.get 1) (local.get 0)))"""

VALUES = [
    *[I32(value) for value in (0, 1, -1, 2**31 - 1, -(2**31))],
    *[I64(value) for value in (0, 1, -1, 2**63 - 1, -(2**63), 2**32)],
    *[F32(bits) for bits in (0, 0x80000000, 1, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7FA00001, 0xFF800001)],
    *[
        F64(bits)
        for bits in (
            *(0, 1 << 63, 1, 0x7FF0000000000000, 0xFFF0000000000000),
            *(0x7FF8000000000000, 0xFFF8000000000001, 0x7FF4000000000001, 0xFFF0000000000001),
        )
    ],
]


@pytest.fixture
def instance(instantiate):
    return instantiate(IDENTITY)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_bit_for_bit(instance, value):
    """Extremes, both zeros, infinities, quiet and signalling NaNs with their payloads."""
    result = instance.call(type(value).__name__.lower(), [value])
    assert result == [value]
    assert type(result) is list


def test_results_have_the_signatures_types(instance):
    """None, one and several results, always as a list."""
    assert instance.call("none", []) == []
    assert instance.call("one", []) == [I32(-1)]
    assert instance.call("four", []) == [I32(1), I64(-2), F32.from_float(0.5), F64(0x7FF4000000000001)]


def test_arguments_may_be_plain_numbers(instance):
    """Ints and floats are typed by the export's signature; an int may stand for a float, a bool for an int."""
    assert instance.call("add", [1, 2]) == [I32(3)]
    assert instance.call("add", [I32(1), 2]) == [I32(3)]
    assert instance.call("half", [3]) == [F64.from_float(1.5)]
    assert instance.call("half", [3.0]) == [F64.from_float(1.5)]
    assert instance.call("i32", [True]) == [I32(1)]
    expected = [F64.from_float(4.5), F32.from_float(3.5), I64(-2), I32(1)]
    assert instance.call("takes_four", (1, -2, 3.5, 4.5)) == expected


def test_arguments_may_be_a_list_a_tuple_or_left_out(instance):
    """Any sequence will do, and a function without parameters needs none."""
    assert instance.call("add", (I32(1), I32(2))) == instance.call("add", [I32(1), I32(2)]) == [I32(3)]
    assert instance.call("one") == instance.call("one", ()) == instance.call("one", []) == [I32(-1)]


def test_a_plain_float_for_an_f32_is_rounded(instance):
    """As IEEE 754 rounds: to the nearest, and to infinity where it is too large."""
    assert instance.call("f32", [0.1]) == [F32(0x3DCCCCCD)]
    assert instance.call("f32", [1e40]) == [F32.from_float(math.inf)]


def test_i32_arithmetic_wraps_as_the_guest_says(instance):
    """Results are read as signed."""
    assert instance.call("add", [2**31 - 1, 1]) == [I32(-(2**31))]


def test_func_returns_none_a_bare_value_or_a_tuple(instance):
    """Plain values, typed by the signature."""
    assert instance.func("none")() is None
    assert instance.func("one")() == -1
    assert instance.func("add")(1, 2) == 3
    result = instance.func("takes_four")(1, -2, 3.5, 4.5)
    assert result == (4.5, 3.5, -2, 1)
    assert [type(each) for each in result] == [float, float, int, int]


def test_func_takes_wasm_values_too(instance):
    """What `call` takes, `func` takes."""
    assert instance.func("add")(I32(1), I32(2)) == 3
    assert math.isnan(instance.func("f64")(F64(0x7FF4000000000001)))


def test_func_can_be_kept_and_called_again(instance):
    """The callable stays good for the instance's life."""
    add = instance.func("add")
    assert [add(i, i) for i in range(100)] == [2 * i for i in range(100)]


def test_one_function_under_two_names(instantiate):
    """Aliases are functions of their own right."""
    source = '(module (func $f (result i32) (i32.const 5)) (export "a" (func $f)) (export "b" (func $f)))'
    instance = instantiate(source)
    assert instance.call("a", []) == instance.call("b", []) == [I32(5)]


def test_an_imported_function_can_be_exported_and_called(instantiate):
    """A re-export of a host function is a function like any other."""
    instance = instantiate("""(module (import "env" "pd_now_micros" (func $f (result i64)))
      (export "now" (func $f)))""")
    assert instance.call("now", []) == [I64(0)]


def test_many_calls_in_a_row(instance):
    """A thousand calls, each with the right answer."""
    assert [instance.call("add", [i, 1])[0].value for i in range(1000)] == list(range(1, 1001))
