"""Calls that cannot be: each a `CallError` that says what is wrong, and the instance stays usable."""

from __future__ import annotations

import enum

import pytest

from pdsandbox import F64, I32, I64, CallError, Cause

SOURCE = """(module
  (memory (export "memory") 1) (global (export "global") i32 (i32.const 1)) (table (export "table") 1 funcref)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "mixed") (param i32 i64 f32 f64)))"""


@pytest.fixture
def instance(instantiate):
    return instantiate(SOURCE)


def refused(instance, make):
    """The CallError that `make()` raises, after which the instance still answers."""
    with pytest.raises(CallError) as caught:
        make()
    assert caught.value.cause is Cause.USAGE
    assert str(caught.value).startswith("WASM call error: ")
    assert instance.alive
    assert instance.call("add", [20, 22]) == [I32(42)]
    return caught.value


class Name(enum.StrEnum):
    ADD = "add"


def every_way(instance, name, args):
    """The three ways to call."""
    return (
        lambda: instance.call(name, args),
        lambda: instance.func(name)(*args),
        lambda: instance.call_many(name, [args]),
    )


@pytest.mark.parametrize(
    "name", ["nope", "", "Add", "add ", "\ud800", "add\0", "n" * 200_000], ids=lambda name: ascii(name)[:20]
)
def test_no_such_export(instance, name):
    """An unknown name, also one without a UTF-8 encoding, is told in a short, printable message."""
    for attempt in every_way(instance, name, []):
        message = refused(instance, attempt).message
        assert message.isprintable()
        assert len(message) < 1_000


@pytest.mark.parametrize("name", ["memory", "global", "table"])
def test_an_export_that_is_no_function(instance, name):
    """Memories, globals and tables cannot be called."""
    for attempt in every_way(instance, name, []):
        assert name in refused(instance, attempt).message


@pytest.mark.parametrize("name", [None, 5, b"add", ["add"]], ids=repr)
def test_a_name_that_is_no_str(instance, name):
    """The message names its type; also when it could not even be looked up."""
    for attempt in every_way(instance, name, [1, 2]):
        assert refused(instance, attempt).message == f"an export's name is a str, not {type(name).__name__}"


def test_a_name_from_an_enumeration(instance):
    """A member of a StrEnum is a str: in the first call and in those that follow."""
    for _ in range(3):
        results = [attempt() for attempt in every_way(instance, Name.ADD, [20, 22])]
        assert results == [[I32(42)], 42, [[I32(42)]]]


def test_no_name_is_not_the_empty_one(instantiate):
    """An export may be named ""; what is no str does not find it."""
    instance = instantiate('(module (func (export "") (result i32) (i32.const 7)))')
    for _ in range(2):
        assert instance.call("") == [I32(7)]
        with pytest.raises(CallError):
            instance.call(None)


@pytest.mark.parametrize("args", [(), (1,), (1, 2, 3), range(1000)], ids=len)
def test_a_wrong_count(instance, args):
    """The message tells how many are wanted and how many were given."""
    for attempt in every_way(instance, "add", list(args)):
        assert refused(instance, attempt).message == f"expected 2 arguments, got {len(args)}"


@pytest.mark.parametrize(
    ("args", "index"),
    [
        ((1.0, 2), 0),
        ((1, "2"), 1),
        ((None, 2), 0),
        ((I64(1), 2), 0),
        ((1, F64(0)), 1),
        (([], 2), 0),
        ((1, 2**31), 1),
        ((-(2**31) - 1, 2), 0),
        ((2**5000, 2), 0),
    ],
    ids=repr,
)
def test_a_wrong_type_or_range(instance, args, index):
    """The message tells which argument it is."""
    for attempt in every_way(instance, "add", list(args)):
        assert f"argument {index}: " in refused(instance, attempt).message


@pytest.mark.parametrize(
    "args",
    [
        (1.5, 1, 1.0, 1.0),
        (1, 2**63, 1.0, 1.0),
        (1, 1, "1", 1.0),
        (1, 1, 1.0, None),
        (1, 1, F64(0), 1.0),
        (1, 1, 1.0, 10**400),
    ],
    ids=range(6),
)
def test_a_wrong_value_of_any_of_the_four_types(instance, args):
    """Integers and floats of both widths are checked."""
    for attempt in every_way(instance, "mixed", list(args)):
        assert "argument " in refused(instance, attempt).message


@pytest.mark.parametrize("args", [None, 5, ...], ids=repr)
def test_arguments_that_are_no_sequence(instance, args):
    """What cannot be a list of arguments is a CallError too."""
    refused(instance, lambda: instance.call("add", args))


@pytest.mark.parametrize("fuel", [-1, 2**63, 2**200, 1.5, "1", float("nan")], ids=repr)
def test_a_fuel_budget_that_cannot_be(instance, fuel):
    """A negative, absurd or non-integer budget is refused wherever one is given."""
    for attempt in (lambda: instance.call("add", [1, 2], fuel=fuel), lambda: instance.set_fuel(fuel)):
        with pytest.raises((CallError, ValueError, TypeError)):
            attempt()
    assert instance.call("add", [20, 22]) == [I32(42)]


def test_message_bytes_for_arguments_just_under_and_just_over(host_factory, instantiate):
    """Arguments of fewer bytes than `message_bytes` pass; more is a CallError that tells the limit."""
    host = host_factory(message_bytes=4096)
    few, many = " ".join(["i64"] * 200), " ".join(["i64"] * 1000)
    instance = instantiate(
        f"""(module (func (export "few") (param {few}) (result i64) (local.get 199))
          (func (export "many") (param {many}) (result i64) (local.get 999)))""",
        on=host,
    )
    assert instance.call("few", list(range(200))) == [I64(199)]
    with pytest.raises(CallError) as caught:
        instance.call("many", list(range(1000)))
    assert caught.value.limit == 4096
    with pytest.raises(CallError) as caught:
        instance.call_many("many", [range(1000)])
    assert caught.value.limit == 4096
    assert instance.call("few", list(range(200))) == [I64(199)]


def test_message_bytes_are_for_one_calls_arguments(host_factory, instantiate):
    """Results do not count, nor how many rows a batch has."""
    many, values = " ".join(["i64"] * 1000), " ".join(["(i64.const 7)"] * 1000)
    instance = instantiate(
        f"""(module (func (export "results") (result {many}) {values})
          (func (export "same") (param i64) (result i64) (local.get 0)))""",
        on=host_factory(message_bytes=4096),
    )
    assert instance.call("results") == [I64(7)] * 1000
    assert instance.call_many("results", [[]] * 3) == [[I64(7)] * 1000] * 3
    assert instance.call_many("same", [[i] for i in range(2000)]) == [[I64(i)] for i in range(2000)]
