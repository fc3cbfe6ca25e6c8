"""`memory_grow`: the host asks for more memory, as the guest's own instruction would."""

from __future__ import annotations

import pytest
from reaching import EVERY_WAY, ONE_PAGE, PAGE, outside

from pdsandbox import I32, CallError, Cause, HostFunction, WasmImports

pytestmark = EVERY_WAY


def test_it_grows_and_says_what_there_was(instance):
    """By none: how many there are. What is new is zero, in reach of both sides, and what was there has stayed."""
    instance.memory_write(0, b"kept")
    assert instance.memory_grow(0) == 1
    assert instance.memory_grow(2) == 1
    assert instance.memory_grow(1) == 3
    assert instance.memory_grow(0) == 4
    assert instance.memory_read(4 * PAGE - 4, 4) == bytes(4)
    instance.memory_write(4 * PAGE - 1, b"!")
    assert instance.call("load", [4 * PAGE - 1]) == [I32(ord("!"))]
    instance.call("store", [3 * PAGE, 7])
    assert instance.memory_read(3 * PAGE, 1) == b"\7"
    assert instance.memory_read(0, 4) == b"kept"
    outside(lambda: instance.memory_read(4 * PAGE, 1))
    outside(lambda: instance.memory_write(4 * PAGE - 1, b"!!"))
    assert instance.call("grow", [1]) == [I32(4)]
    assert instance.memory_grow(0) == 5


def test_the_modules_own_maximum_holds(instance):
    """-1, and nothing has changed; up to it is fine."""
    for pages in (100, 2**31, 2**63 - 1, 2**63, 2**64 - 1):
        assert instance.memory_grow(pages) == -1
    assert instance.memory_grow(99) == 1
    assert instance.memory_grow(1) == -1
    instance.memory_write(100 * PAGE - 1, b"!")
    assert instance.call("load", [100 * PAGE - 1]) == [I32(ord("!"))]


def test_memory_bytes_holds(host_factory, instantiate):
    """Just to the limit passes, one page more is -1."""
    instance = instantiate('(module (memory (export "memory") 1))', on=host_factory(memory_bytes=10 * PAGE))
    assert instance.memory_grow(10) == -1
    assert instance.memory_grow(9) == 1
    assert instance.memory_grow(1) == -1
    assert instance.memory_grow(0) == 10


def test_it_costs_no_fuel(instance):
    """No guest code runs."""
    before = instance.fuel_consumed()
    instance.memory_grow(3)
    assert instance.fuel_consumed() == before


def test_without_a_memory(instantiate):
    """MemoryAccessError, as for every use of it; a memory that is not exported is none. The instance stays usable."""
    for source in ('(module (func (export "f")))', '(module (memory 1) (func (export "f")))'):
        instance = instantiate(source)
        outside(lambda instance=instance: instance.memory_grow(0))
        outside(lambda instance=instance: instance.memory_grow(1))
        assert instance.call("f") == []


def test_which_memory(instantiate):
    """The export `memory`, else the first one that is exported."""
    instance = instantiate('(module (memory 1) (memory (export "a") 2) (memory (export "b") 3))')
    assert instance.memory_grow(1) == 2
    instance = instantiate('(module (memory (export "a") 2) (memory (export "memory") 3))')
    assert instance.memory_grow(1) == 3


NONE = {"negative": -1, "2**64": 2**64, "float": 1.0, "str": "1", "None": None, "bool": True, "long": 1 << 20_000}


@pytest.mark.parametrize("pages", NONE.values(), ids=NONE)
def test_what_is_no_number_of_pages_is_refused(instance, pages):
    """CallError, and nothing has happened."""
    with pytest.raises(CallError, match="memory_grow takes a number of pages") as caught:
        instance.memory_grow(pages)
    assert caught.value.cause is Cause.USAGE
    assert len(str(caught.value)) < 200
    assert instance.memory_grow(0) == 1


def test_a_64_bit_memory_may_move(instantiate):
    """What was there is there, wherever it is now."""
    instance = instantiate('(module (memory (export "memory") i64 1) (func (export "f")))')
    instance.memory_write(10, b"kept")
    assert instance.memory_grow(1000) == 1
    assert instance.memory_read(10, 4) == b"kept"
    instance.memory_write(1001 * PAGE - 1, b"!")
    instance.call("f")
    assert instance.memory_read(1001 * PAGE - 1, 1) == b"!"


def test_not_from_inside_a_call_and_not_after_close(instantiate):
    """As every use of an instance."""
    refused = []

    def host(_caller):
        with pytest.raises(CallError, match="inside its own host function") as caught:
            instance.memory_grow(1)
        refused.append(caught.value.cause)

    imports = WasmImports(functions={("m", "f"): HostFunction(host)})
    instance = instantiate(
        '(module (import "m" "f" (func $f)) (memory (export "memory") 1) (func (export "g") (call $f)))', imports
    )
    instance.call("g")
    assert refused == [Cause.USAGE]
    assert instance.memory_grow(0) == 1
    instance.close()
    with pytest.raises(CallError) as caught:
        instance.memory_grow(0)
    assert caught.value.cause is Cause.CLOSED


def test_while_instances_take_turns(host, instantiate):
    """Each has its own memory, also those that share a worker."""
    module = host.compile(ONE_PAGE)
    with host.instantiate(module) as first, host.instantiate(module) as second:
        assert first.memory_grow(5) == 1
        assert second.memory_grow(0) == 1
        assert first.memory_grow(0) == 6
