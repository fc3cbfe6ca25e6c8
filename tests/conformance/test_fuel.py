"""Fuel: one budget a call, one budget for many, one for this call alone; what is counted."""

from __future__ import annotations

import pytest

from pdsandbox import I32, CallError, Cause, EngineConfig, FuelExhausted

SOURCE = """(module
  (func (export "spin") (param i32) (result i32)
    (loop $again
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      (br_if $again (i32.gt_s (local.get 0) (i32.const 0))))
    (i32.const 7))
  (func (export "ok") (result i32) (i32.const 42)))"""
START = """(module
  (func $start (local $i i32)
    (loop $again
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_s (local.get $i) (i32.const 1000)))))
  (func (export "ok") (result i32) (i32.const 42))
  (start $start))"""


def cost(instance, *call):
    """Fuel that one call consumes."""
    before = instance.fuel_consumed()
    instance.call(*call)
    return instance.fuel_consumed() - before


def smallest_budget(instance, *call):
    """The smallest `fuel=` with which this call passes, by bisection: a smaller budget never passes."""
    low, high = 0, cost(instance, *call)  # low fails, high passes
    while high - low > 1:
        middle = (low + high) // 2
        try:
            instance.call(*call, fuel=middle)
        except FuelExhausted:
            low = middle
        else:
            high = middle
    return high


def exhausted(make):
    """`make()` raises FuelExhausted, as documented."""
    with pytest.raises(FuelExhausted) as caught:
        make()
    assert caught.value.cause is Cause.FUEL
    assert str(caught.value) == "WASM fuel budget exhausted"


def test_a_calls_own_budget_exactly(instantiate):
    """With exactly what the call needs it passes, with one less it does not; time after time."""
    instance = instantiate(SOURCE)
    spin = ("spin", [1000])
    enough = smallest_budget(instance, *spin)
    assert 1000 < enough <= cost(instance, *spin)
    for _ in range(3):
        exhausted(lambda: instance.call(*spin, fuel=enough - 1))
        assert instance.call(*spin, fuel=enough) == [I32(7)]


def test_limits_fuel_exactly(host_factory, instantiate):
    """The same figure as `Limits.fuel`: it passes each time, and one less fails each time."""
    enough = smallest_budget(instantiate(SOURCE), "spin", [1000])
    under = instantiate(SOURCE, on=host_factory(fuel=enough))
    over = instantiate(SOURCE, on=host_factory(fuel=enough - 1))
    for _ in range(3):
        assert under.call("spin", [1000]) == [I32(7)]
        exhausted(lambda: over.call("spin", [1000]))
        assert over.call("ok", []) == [I32(42)]


def test_every_call_starts_with_the_whole_of_limits_fuel(host_factory, instantiate):
    """What one call leaves is not carried over, nor is what it took."""
    each = cost(instantiate(SOURCE), "spin", [1000])
    instance = instantiate(SOURCE, on=host_factory(fuel=each + each // 2))
    assert [instance.call("spin", [1000]) for _ in range(5)] == [[I32(7)]] * 5
    assert instance.fuel_consumed() >= 5 * each


def test_set_fuel_is_one_budget_for_the_calls_after_it(instantiate):
    """Calls draw it down together, until it is set again."""
    instance = instantiate(SOURCE)
    each = cost(instance, "spin", [1000])
    for _ in range(2):
        instance.set_fuel(2 * each + each // 2)
        assert instance.call("spin", [1000]) == [I32(7)]
        assert instance.call("spin", [1000]) == [I32(7)]
        exhausted(lambda: instance.call("spin", [1000]))


def test_what_is_left_of_set_fuel_after_exhaustion_is_nothing(instantiate):
    """Once used up it stays used up, also for the next call."""
    instance = instantiate(SOURCE)
    instance.set_fuel(500)
    exhausted(lambda: instance.call("spin", [1000]))
    exhausted(lambda: instance.call("spin", [1000]))
    instance.set_fuel(1_000_000)
    assert instance.call("spin", [1000]) == [I32(7)]


def test_set_fuel_replaces_and_does_not_add(instantiate):
    """The last figure counts."""
    instance = instantiate(SOURCE)
    each = cost(instance, "spin", [1000])
    instance.set_fuel(10 * each)
    instance.set_fuel(each // 2)
    exhausted(lambda: instance.call("spin", [1000]))


def test_set_fuel_may_exceed_limits_fuel(host_factory, instantiate):
    """`set_fuel` replaces the limit of each call; who embeds us decides."""
    host = host_factory(fuel=1_000)
    instance = instantiate(SOURCE, on=host)
    exhausted(lambda: instance.call("spin", [5000]))
    instance.set_fuel(1_000_000)
    assert instance.call("spin", [5000]) == [I32(7)]


def test_a_calls_own_budget_leaves_the_shared_one_alone(instantiate):
    """`call(fuel=)` neither takes from `set_fuel`'s budget nor adds to it, whether it suffices or not."""
    instance = instantiate(SOURCE)
    each = cost(instance, "spin", [1000])
    instance.set_fuel(each + each // 2)
    assert instance.call("spin", [10_000], fuel=100 * each) == [I32(7)]
    exhausted(lambda: instance.call("spin", [10_000], fuel=each))
    assert instance.call("spin", [1000]) == [I32(7)]
    exhausted(lambda: instance.call("spin", [1000]))


def test_consumption_counts_instantiation(instantiate):
    """The start function's fuel is in the figure before the first call."""
    assert instantiate(START).fuel_consumed() > 1000
    assert instantiate(SOURCE).fuel_consumed() < 1000


def test_instantiation_has_limits_fuel_too(host_factory, instantiate):
    """Just enough for the start function passes, clearly less does not."""
    needed = instantiate(START).fuel_consumed()
    assert instantiate(START, on=host_factory(fuel=needed)).call("ok", []) == [I32(42)]
    exhausted(lambda: instantiate(START, on=host_factory(fuel=needed // 2)))


def test_consumption_only_grows_and_the_same_call_costs_the_same(instantiate):
    """Over successes, budgets of all kinds, traps and exhaustion."""
    instance = instantiate(SOURCE)
    seen = [instance.fuel_consumed()]
    costs = set()
    for _ in range(3):
        costs.add(cost(instance, "spin", [100]))
        seen.append(instance.fuel_consumed())
        exhausted(lambda: instance.call("spin", [10_000], fuel=1_000))
        seen.append(instance.fuel_consumed())
        instance.set_fuel(5_000)
        seen.append(instance.fuel_consumed())
        exhausted(lambda: instance.call("spin", [10_000]))
        seen.append(instance.fuel_consumed())
        instance.set_fuel(1_000_000_000)
    assert seen == sorted(seen)
    assert len(costs) == 1
    assert seen[-1] - seen[0] >= 3 * (1_000 + 5_000)


def test_an_endless_loop_ends_and_the_instance_stays_usable(host_factory, instantiate, wat):
    """`FuelExhausted` leaves an instance as good as before."""
    instance = instantiate(wat("endless_loop"), on=host_factory(fuel=1_000_000))
    for _ in range(3):
        exhausted(lambda: instance.call("run", []))
        assert instance.alive
        assert instance.call("ok", []) == [I32(42)]


def test_without_metering_there_is_no_fuel(host_factory, instantiate):
    """`fuel_consumed` is None, `set_fuel` does nothing, and a budget for one call is a CallError."""
    instance = instantiate(SOURCE, on=host_factory(engine=EngineConfig(fuel=False)))
    assert instance.fuel_consumed() is None
    instance.set_fuel(1)
    assert instance.call("spin", [100_000]) == [I32(7)]
    assert instance.fuel_consumed() is None
    for attempt in (
        lambda: instance.call("ok", [], fuel=1_000),
        lambda: instance.call_many("ok", [[]], fuel=1_000),
    ):
        with pytest.raises(CallError) as caught:
            attempt()
        assert caught.value.cause is Cause.USAGE
    assert instance.call("ok", []) == [I32(42)]


def test_no_limit_on_fuel_still_counts(host_factory, instantiate):
    """`Limits(fuel=None)` sets no budget; consumption is known all the same."""
    instance = instantiate(SOURCE, on=host_factory(fuel=None))
    assert cost(instance, "spin", [1000]) == cost(instance, "spin", [1000]) > 1000
    exhausted(lambda: instance.call("spin", [1000], fuel=500))
