"""`call_many`: one function over many rows, with one budget; a failing row tells which it was."""

from __future__ import annotations

import pytest

from pdsandbox import I32, CallError, Cause, FuelExhausted, HostFunction, Trap, TrapCode, WasmImports

SOURCE = """(module (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "next") (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "none") (param i32))
  (func (export "pair") (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
  (func (export "spin") (param i32) (result i32)
    (loop $again
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (br_if $again (i32.gt_s (local.get 0) (i32.const 0))))
    (i32.const 7)))"""


@pytest.fixture
def instance(instantiate):
    return instantiate(SOURCE)


def test_one_list_of_results_per_row(instance):
    """In order, each as `call` would give it."""
    rows = [(i, 2 * i) for i in range(10)]
    assert instance.call_many("add", rows) == [instance.call("add", row) for row in rows]
    assert instance.call_many("none", [[1], [2]]) == [[], []]
    pairs = instance.call_many("pair", [(I32(1), 2), (3, 4)])
    assert pairs == [instance.call("pair", [1, 2]), instance.call("pair", [3, 4])]


def test_rows_run_in_order(instance):
    """State carries over from row to row."""
    assert instance.call_many("next", [[]] * 5) == [[I32(i)] for i in range(1, 6)]


def test_no_rows_no_results(instance):
    """An empty batch is answered, not refused."""
    assert instance.call_many("add", []) == []
    assert instance.call_many("add", iter(())) == []


def test_rows_may_come_from_a_generator(instance):
    """Any iterable of sequences will do."""
    assert instance.call_many("add", ((i, [1][0]) for i in range(3))) == [[I32(1)], [I32(2)], [I32(3)]]
    assert instance.call_many("add", [[1, 2], (3, 4)]) == [[I32(3)], [I32(7)]]


def test_a_generator_that_raises_is_heard(instance):
    """The iterable's own exception comes through as it is, and the instance stays usable."""

    def rows():
        yield 1, 2
        raise KeyError("rows")

    with pytest.raises(KeyError, match="rows"):
        instance.call_many("add", rows())
    assert instance.call("add", [1, 2]) == [I32(3)]


def test_a_hundred_thousand_rows(instance):
    """Every answer is right."""
    count = 100_000
    results = instance.call_many("add", [(i, i) for i in range(count)])
    assert len(results) == count
    assert all(result == [I32(2 * i)] for i, result in enumerate(results))


@pytest.mark.parametrize("bad", [0, 1, 4])
def test_a_row_that_traps_tells_which_and_what_came_before(instance, bad):
    """`.row` is its index, `.results` the results of the rows before it; the rows after it have not run."""
    rows = [(10, 0 if i == bad else 5) for i in range(5)]
    with pytest.raises(Trap) as caught:
        instance.call_many("divide", rows)
    assert caught.value.trap_code is TrapCode.INTEGER_DIVISION_BY_ZERO
    assert caught.value.row == bad
    assert caught.value.results == [[I32(2)]] * bad
    assert instance.call("add", [1, 2]) == [I32(3)]


def test_a_host_function_that_raises_in_a_row(instantiate):
    """The batch ends there with its cause, the original chained; later rows are not run."""
    seen = []

    def callback(caller, value):
        seen.append(value)
        if value == 2:
            raise LookupError(value)
        return value * 10

    instance = instantiate(
        """(module (import "env" "f" (func $f (param i32) (result i32)))
          (func (export "run") (param i32) (result i32) (call $f (local.get 0))))""",
        WasmImports(functions={("env", "f"): HostFunction(callback, ("i32",), ("i32",))}),
    )
    with pytest.raises(CallError) as caught:
        instance.call_many("run", [[0], [1], [2], [3]])
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert isinstance(caught.value.__cause__, LookupError)
    assert (caught.value.row, caught.value.results) == (2, [[I32(0)], [I32(10)]])
    assert seen == [0, 1, 2]
    assert instance.call_many("run", [[4], [5]]) == [[I32(40)], [I32(50)]]


@pytest.mark.parametrize("row", [(1,), (1, 2, 3), (1, "2"), (1, 2**31), 5, None], ids=repr)
def test_a_row_of_wrong_arguments_tells_which(instance, row):
    """CallError, cause USAGE, with the row's index."""
    with pytest.raises(CallError) as caught:
        instance.call_many("add", [(1, 2), row, (3, 4)])
    assert caught.value.cause is Cause.USAGE
    assert caught.value.row == 1
    assert instance.call_many("add", [(1, 2)]) == [[I32(3)]]


@pytest.mark.parametrize("rows", [None, 5], ids=repr)
def test_rows_that_cannot_be_iterated(instance, rows):
    """It is refused as a wrong argument."""
    with pytest.raises((CallError, TypeError)):
        instance.call_many("add", rows)
    assert instance.call("add", [1, 2]) == [I32(3)]


def test_one_budget_of_fuel_for_the_whole_batch(instance):
    """Rows draw it down together; the one that runs out tells which it was."""
    before = instance.fuel_consumed()
    instance.call("spin", [1000])
    each = instance.fuel_consumed() - before
    budget = 3 * each + each // 2
    assert instance.call_many("spin", [[1000]] * 3, fuel=budget) == [[I32(7)]] * 3
    with pytest.raises(FuelExhausted) as caught:
        instance.call_many("spin", [[1000]] * 5, fuel=budget)
    assert (caught.value.row, caught.value.results) == (3, [[I32(7)]] * 3)
    assert instance.call("spin", [1000]) == [I32(7)]


def test_limits_fuel_is_for_the_whole_batch_too(host_factory, instantiate):
    """Without `fuel=` it is `Limits.fuel` that the rows share, and the next batch has all of it again."""
    instance = instantiate(SOURCE, on=host_factory(fuel=20_000))
    for _ in range(2):
        with pytest.raises(FuelExhausted) as caught:
            instance.call_many("spin", [[1000]] * 100)
        assert 1 <= caught.value.row < 10
        assert len(caught.value.results) == caught.value.row


def test_a_batch_draws_on_set_fuel(instance):
    """And leaves what it has not used to the next."""
    before = instance.fuel_consumed()
    instance.call("spin", [1000])
    each = instance.fuel_consumed() - before
    instance.set_fuel(4 * each + each // 2)
    assert instance.call_many("spin", [[1000]] * 3) == [[I32(7)]] * 3
    with pytest.raises(FuelExhausted) as caught:
        instance.call_many("spin", [[1000]] * 3)
    assert caught.value.row == 1


def test_a_batch_counts_what_its_calls_would(instance):
    """Fuel consumed by a batch is that of its calls."""
    start = instance.fuel_consumed()
    instance.call("spin", [100])
    each = instance.fuel_consumed() - start
    instance.call_many("spin", [[100]] * 50)
    assert instance.fuel_consumed() - start == 51 * each
