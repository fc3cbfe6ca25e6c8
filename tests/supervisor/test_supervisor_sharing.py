"""Workers shared by the instances of one module: who shares, and what is each one's own."""

from __future__ import annotations

import pytest
from copying import refuse_copies
from supervising import (
    GUEST,
    MIB,
    expect,
    imports,
    make_guest,
    together,
)

import pdsandbox.supervisor.sharing
from pdsandbox import (
    I32,
    Capability,
    Cause,
    Dir,
    HostFunction,
    InstantiationError,
    Supervisor,
    Trap,
    Wasi,
    WasmImports,
    in_worker,
)
from pdsandbox.supervisor.sharing import MOST_INSTANCES

OTHER = GUEST.replace("i32.const 42", "i32.const 43")
#: Twelve exports: more than a worker numbers unasked.
MANY = "".join(f'(func (export "f{n}") (result i32) (i32.const {n}))' for n in range(12))
GROWS = """(module (memory (export "memory") 1)
  (func (export "grow") (param i32) (result i32) (local $at i32)
    (local.set $at (i32.mul (memory.size) (i32.const 65536)))
    (drop (memory.grow (local.get 0)))
    (memory.fill (local.get $at) (i32.const 1) (i32.mul (local.get 0) (i32.const 65536)))
    (memory.size)))"""
SAYS = """(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "random") (result i64) (drop (call $random (i32.const 0) (i32.const 8))) (i64.load (i32.const 0)))
  (func (export "say")
    (drop (call $sizes (i32.const 0) (i32.const 8)))
    (drop (call $args (i32.const 16) (i32.const 64)))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.sub (i32.load (i32.const 8)) (i32.const 1)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


@pytest.fixture
def host(make_supervisor):
    return make_supervisor(isolation="module")


def guests(host, count, **callbacks):
    return [make_guest(host, **callbacks) for _ in range(count)]


# --- who shares ---


def test_equal_bytes_share_and_others_never(host):
    """Three instances of one module, compiled twice, have one worker; another module's has its own."""
    one, two, three = guests(host, 3)
    other = host.instantiate(host.compile(OTHER), imports())
    assert one.pid == two.pid == three.pid != other.pid
    assert [instance.call("ok")[0].value for instance in (one, two, three, other)] == [42, 42, 42, 43]
    assert Capability.INDEPENDENCE in host.missing
    assert not Supervisor.missing


def test_threads_that_come_at_once_share(host):
    """Whoever is first makes the worker, and the others wait for it."""
    module = host.compile(GUEST)
    found = together(*[lambda: host.instantiate(module, imports()) for _ in range(6)])
    assert len({instance.pid for instance in found}) == 1
    assert [instance.call("next")[0].value for instance in found] == [1] * 6


@pytest.mark.parametrize("spares", [0, 1])
def test_max_workers_counts_workers(make_supervisor, spares):
    """Of one module as many instances as one likes; a second module is one worker more."""
    host = make_supervisor(isolation="module", max_workers=1, spares=spares)
    found = guests(host, 5)
    error = expect(InstantiationError, Cause.USAGE, lambda: host.instantiate(host.compile(OTHER), imports()))
    assert error.limit == 1
    for instance in found:
        instance.close()
    host.instantiate(host.compile(OTHER), imports())


def test_a_hundred_share(host):
    """And each is called, calls its host function, and has its own of everything."""
    found = [make_guest(host, ask=lambda value, number=number: value + number) for number in range(MOST_INSTANCES)]
    assert len({instance.pid for instance in found}) == 1
    for _ in range(2):
        assert [instance.call("ask", [1])[0].value for instance in found] == list(range(1, 1 + MOST_INSTANCES))
    assert make_guest(host).pid != found[0].pid
    for instance in found[::2]:
        instance.close()
    assert [instance.call("next") for instance in found[1::2]] == [[I32(1)]] * (MOST_INSTANCES // 2)


def test_a_worker_takes_in_so_many(host, monkeypatch):
    """One more gets a new worker, to which the next go, too."""
    monkeypatch.setattr(pdsandbox.supervisor.sharing, "MOST_INSTANCES", 3)
    pids = [instance.pid for instance in guests(host, 7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_half_of_its_memory_is_for_those_that_are_there(make_supervisor):
    """A worker that has half of what it may have takes in nobody else."""
    host = make_supervisor(isolation="module", rss_bytes=128 * MIB)
    module = host.compile(GROWS)
    one, two = host.instantiate(module), host.instantiate(module)
    assert one.pid == two.pid
    one.call("grow", [64 * 16])
    three = host.instantiate(module)
    assert three.pid != one.pid
    assert host.instantiate(module).pid == three.pid


def test_functions_and_directories_that_come_before_the_lock_want_a_worker_of_their_own(host, tmp_path):
    """An instance with either is alone in its worker, before others and after."""

    def double(_caller, value):
        return 2 * value

    module = host.compile(GUEST)
    shipped = WasmImports(
        functions={
            ("env", "tell"): HostFunction(lambda _caller, _value: None, ("i32",)),
            ("env", "ask"): HostFunction(in_worker(double), ("i32",), ("i32",)),
        }
    )
    shared = host.instantiate(module, imports())
    alone = [host.instantiate(module, shipped) for _ in range(2)]
    alone.append(host.instantiate(module, imports(), wasi=Wasi(dirs=(Dir(tmp_path, "/"),))))
    again = host.instantiate(module, imports())
    assert len({instance.pid for instance in alone} | {shared.pid}) == 4
    assert again.pid == shared.pid
    assert [instance.call("ask", [4])[0].value for instance in (*alone, again)] == [8, 8, 4, 4]


# --- what is each one's own ---


@pytest.mark.parametrize("copied", [True, False])
def test_memory_and_globals_are_each_ones_own(host, monkeypatch, copied):
    """What one writes, grows or counts is nowhere else; also for host functions, and through the pipes."""
    if not copied:
        refuse_copies(monkeypatch, 1)
    seen = []
    found = []
    for number in range(3):
        functions = {
            ("env", "tell"): HostFunction(lambda _caller, _value: None, ("i32",)),
            ("env", "ask"): HostFunction(
                lambda caller, at: seen.append(bytes(caller.memory_read(at, 4))) or len(seen), ("i32",), ("i32",)
            ),
        }
        found.append(host.instantiate(host.compile(GUEST), WasmImports(functions=functions)))
        found[-1].memory_write(100, b"%04d" % number)
    for number, instance in enumerate(found):
        for count in range(number + 1):
            assert instance.call("next") == [I32(count + 1)]
    assert [instance.memory_read(100, 4) for instance in found] == [b"0000", b"0001", b"0002"]
    for instance in reversed(found):
        instance.call("ask", [100])
    assert seen == [b"0002", b"0001", b"0000"]
    found[1].close()
    assert [found[n].memory_read(100, 4) for n in (0, 2)] == [b"0000", b"0002"]
    fresh = make_guest(host)
    assert fresh.memory_read(100, 4) == bytes(4)
    assert fresh.call("next") == [I32(1)]


def test_fuel_is_each_ones_own(make_supervisor):
    """A budget of one is not another's, and each counts what it used."""
    host = make_supervisor(isolation="module", fuel=1_000_000)
    one, two = guests(host, 2)
    before = two.fuel_consumed()
    one.set_fuel(0)
    expect(pdsandbox.FuelExhausted, Cause.FUEL, lambda: one.call("add", [1, 2]))
    assert two.fuel_consumed() == before
    assert two.call("add", [1, 2]) == [I32(3)]
    assert two.fuel_consumed() > before


def test_streams_and_arguments_are_each_ones_own(host):
    """Output comes to whom its guest belongs, taken by one or not; random numbers differ."""
    module = host.compile(SAYS)
    one, two, three = (host.instantiate(module, wasi=Wasi(args=(name,))) for name in ("one", "two", "three"))
    assert one.pid == two.pid == three.pid
    for instance in (one, two, three, one):
        instance.call("say")
    assert one.output().stdout == b"oneone"
    three.close()
    assert (two.output().stdout, one.output().stdout) == (b"two", b"")
    assert three.output().stdout == b"three"  # what it had said before
    one.call("say")
    assert (two.output().stdout, one.output().stdout) == (b"", b"one")
    assert one.call("random") != two.call("random")


def test_host_functions_are_each_ones_own(host):
    """Each guest's import is the function that it was given, in calls, in batches, and through a trap."""
    found = [make_guest(host, ask=lambda value, factor=factor: value * factor) for factor in (1, 10, 100)]
    for _ in range(3):
        assert [instance.call("ask", [7])[0].value for instance in found] == [7, 70, 700]
        assert [instance.call_many("ask", [[1], [2]]) for instance in found[1:]] == [
            [[I32(10)], [I32(20)]],
            [[I32(100)], [I32(200)]],
        ]
        expect(Trap, Cause.GUEST_TRAP, lambda: found[1].call("trap"))


def test_exports_are_found_by_whose_they_are(host):
    """More exports than are numbered unasked, first called in any order, by instances that come and go."""
    module = host.compile(f"(module {MANY})")
    kept = host.instantiate(module)
    for turn in range(5):
        one, two = host.instantiate(module), host.instantiate(module)
        for n in (11, turn, 8 + turn % 4, 3, 11):
            assert [i.call(f"f{n}")[0].value for i in (one, kept, two, one)] == [n] * 4
        one.close()
        assert two.call_many("f9", [[]] * 3) == [[I32(9)]] * 3
        two.close()
    assert kept.call("f10") == [I32(10)]
