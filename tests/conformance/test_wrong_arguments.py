"""Wrong arguments: the same CallError on the first call of an export and on a warm one, and the guest never runs."""

from __future__ import annotations

import collections

import pytest

from pdsandbox import F32, I32, I64, CallError, Cause, HostFunction, WasmImports

#: Each function first tells that it runs.
GUEST = """(module
  (import "env" "reached" (func $reached))
  (func (export "none") (call $reached))
  (func (export "one") (param i32) (result i32) (call $reached) (local.get 0))
  (func (export "two") (param i32 i64) (result i64) (call $reached) (local.get 1))
  (func (export "mixed") (param i32 f32 f64) (result f64) (call $reached) (local.get 2)))"""
RIGHT = {"none": [], "one": [7], "two": [7, 8], "mixed": [7, 0.5, 0.25]}


class Raises:
    """A number that breaks when it is looked at."""

    def __init__(self, original):
        self.original = original

    def __index__(self):
        raise self.original


class WrongIndex:
    def __index__(self):
        return "1"  # noqa: PLE0305 - that is what is wrong with it


class RaisingFloat(float):
    def __float__(self):
        raise ZeroDivisionError


class NoLength(list):
    def __len__(self):
        raise ZeroDivisionError


class Endless(list):
    def __iter__(self):
        raise ZeroDivisionError


HUGE = 10**5000
WRONG = {
    "too few": ("two", lambda: [1]),
    "too many": ("two", lambda: [1, 2, 3]),
    "too many by far": ("one", lambda: list(range(100_000))),
    "any for none": ("none", lambda: [1]),
    "none for one": ("one", lambda: ()),
    "one beyond i32": ("one", lambda: [2**31]),
    "one below i32": ("one", lambda: [-(2**31) - 1]),
    "one beyond i64": ("two", lambda: [1, 2**63]),
    "one below i64": ("two", lambda: [1, -(2**63) - 1]),
    "an unsigned i32": ("one", lambda: [2**32 - 1]),
    "a huge int": ("two", lambda: [1, HUGE]),
    "a huge int for a float": ("mixed", lambda: [1, HUGE, 1.0]),
    "a float for an int": ("one", lambda: [1.0]),
    "a str for an int": ("one", lambda: ["1"]),
    "a str for a float": ("mixed", lambda: [1, "1", 1.0]),
    "None": ("one", lambda: [None]),
    "a list in a list": ("one", lambda: [[1]]),
    "the wrong WasmVal": ("one", lambda: [I64(1)]),
    "the wrong WasmVal of two": ("two", lambda: [I32(1), I32(2)]),
    "a WasmVal in a tuple": ("two", lambda: (I32(1), I32(2))),
    "a float's WasmVal": ("one", lambda: [F32(1)]),
    "an __index__ that raises ValueError": ("one", lambda: [Raises(ValueError("mine"))]),
    "an __index__ that raises TypeError": ("two", lambda: [1, Raises(TypeError("mine"))]),
    "an __index__ that raises OverflowError": ("two", lambda: [1, Raises(OverflowError("mine"))]),
    "an __index__ that raises MemoryError": ("one", lambda: [Raises(MemoryError())]),
    "an __index__ that raises for a float": ("mixed", lambda: [Raises(ValueError()), 1.0, 1.0]),
    "an __index__ that answers a str": ("one", lambda: [WrongIndex()]),
    "a __float__ that raises": ("mixed", lambda: [1, RaisingFloat(1.0), 1.0]),
    "a generator": ("two", lambda: (n for n in (1, 2))),
    "a generator of one for none": ("none", lambda: (n for n in (1,))),
    "a generator of none for none": ("none", lambda: (n for n in ())),
    "an iterator": ("two", lambda: iter([1, 2])),
    "a spent iterator for none": ("none", lambda: map(int, ["1"])),
    "a dict": ("two", lambda: {1: 1, 2: 2}),
    "an empty dict": ("none", dict),
    "a counter": ("one", lambda: collections.Counter([1])),
    "a set": ("one", lambda: {1}),
    "an empty str": ("none", str),
    "a str of digits": ("two", lambda: "12"),
    "a list without a length": ("one", lambda: NoLength([1])),
    "a list that cannot be iterated": ("one", lambda: Endless([1])),
    "a number": ("one", lambda: 1),
    "nothing at all": ("none", lambda: None),
    "a type": ("none", lambda: list),
}
wrong = pytest.mark.parametrize(("name", "make"), WRONG.values(), ids=WRONG)
VALUES = {what: (name, make) for what, (name, make) in WRONG.items() if type(make()) in (list, tuple)}
#: What holds arguments but is no list, and is as good.
SEQUENCES = {
    "a tuple": (7, 8),
    "a range": range(7, 9),
    "a deque": collections.deque([7, 8]),
    "a named tuple": collections.namedtuple("Both", "a b")(7, 8),
    "bytes": b"\7\10",
    "bools": [True, False],
}


@pytest.fixture
def reached():
    return []


@pytest.fixture
def make_guest(instantiate, reached):
    imports = WasmImports(functions={("env", "reached"): HostFunction(lambda _caller: reached.append(1))})
    return lambda: instantiate(GUEST, imports)


def refusal(action):
    """The CallError, cause USAGE, that `action()` raises, as (message, class of what is chained)."""
    with pytest.raises(CallError) as caught:
        action()
    assert caught.value.cause is Cause.USAGE
    return caught.value.message, type(caught.value.__cause__)


@wrong
def test_the_first_call_and_a_warm_one_say_the_same(make_guest, reached, name, make):
    """Refused alike before the export was ever called, right after a good call, and twice in a row; never run."""
    instance = make_guest()
    first = refusal(lambda: instance.call(name, make()))
    assert reached == []
    for _ in range(3):
        assert len(instance.call(name, RIGHT[name])) == (name != "none")
    reached.clear()
    consumed = instance.fuel_consumed()
    for _ in range(2):
        assert refusal(lambda: instance.call(name, make())) == first
    assert reached == []
    assert instance.fuel_consumed() == consumed
    instance.call(name, RIGHT[name])
    assert reached == [1]


@pytest.mark.parametrize(("name", "make"), VALUES.values(), ids=VALUES)
def test_func_refuses_the_same_values(make_guest, reached, name, make):
    """Where there are values to hand over one by one, `func` says what `call` says."""
    instance = make_guest()
    args = make()
    expected = refusal(lambda: instance.call(name, args))
    function = instance.func(name)
    for warm in (False, True):
        assert refusal(lambda: function(*args)) == expected
        assert reached == []
        if not warm:
            function(*RIGHT[name])
            reached.clear()


@wrong
def test_a_batch_refuses_the_same_rows(make_guest, reached, name, make):
    """As a row of a batch: the same message, the row's number, and no row runs."""
    instance = make_guest()
    expected = refusal(lambda: instance.call(name, make()))
    for rows_before in (0, 3):
        with pytest.raises(CallError) as caught:
            instance.call_many(name, [RIGHT[name]] * rows_before + [make()] + [RIGHT[name]])
        assert (caught.value.message, type(caught.value.__cause__)) == expected
        assert (caught.value.cause, caught.value.row, caught.value.results) == (Cause.USAGE, rows_before, [])
    assert reached == []
    instance.call(name, RIGHT[name])
    assert reached == [1]


def test_what_an_argument_raises_is_chained(make_guest):
    """The caller's own exception is not lost; an interrupt is nobody's argument."""
    instance = make_guest()
    for _ in range(2):
        original = ValueError("mine")
        with pytest.raises(CallError) as caught:
            instance.call("one", [Raises(original)])
        assert caught.value.__cause__ is original
        interrupt = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt) as interrupted:
            instance.call("one", [Raises(interrupt)])
        assert interrupted.value is interrupt
        assert instance.call("one", [7]) == [I32(7)]


@pytest.mark.parametrize("args", SEQUENCES.values(), ids=SEQUENCES)
def test_other_sequences_are_as_good_as_a_list(make_guest, args):
    """First and warm: what has a length and an order."""
    instance = make_guest()
    for _ in range(3):
        assert instance.call("two", args) == [I64(args[1])]
        assert instance.call_many("two", [args, list(args)]) == [[I64(args[1])]] * 2


def test_an_int_subclass_is_the_int_that_it_is(make_guest):
    """Its `__index__` is not asked, as nowhere in Python."""

    class Sub(int):
        def __index__(self):
            raise ZeroDivisionError

    instance = make_guest()
    for _ in range(3):
        assert instance.call("one", [Sub(5)]) == [I32(5)]
        assert instance.func("one")(Sub(5)) == 5
        assert instance.call_many("one", [[Sub(5)]]) == [[I32(5)]]


def test_an_argument_that_calls_the_instance(make_guest, reached):
    """From inside its own call an instance is in use: refused, chained to nothing else, and it lives on."""
    instance = make_guest()

    class Calls:
        def __index__(self):
            return instance.call("one", [1])[0].value

    for _ in range(2):
        # Turned into slots while the instance is held.
        with pytest.raises(CallError, match="inside its own"):
            instance.call("one", [Calls()])
        assert reached == []
        assert instance.call("one", [7]) == [I32(7)]
        reached.clear()
