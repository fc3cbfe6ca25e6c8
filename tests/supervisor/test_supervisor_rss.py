"""Resident memory: a guest just under `rss_bytes` stays usable, one just over is ended, near the limit.

Where the figure itself is asserted, the guest goes slowly enough (some 200 MB/s) that a supervisor which waits for a
core for tens of milliseconds still sees it within 16 MiB.
"""

from __future__ import annotations

import mmap
import select
import threading

import pytest
from supervising import MIB, PAGE, PATIENCE_S, eventually, expect, gone

from pdsandbox import I32, Cause, HostFunction, RssExceeded, WasmImports, in_worker

LIMIT = 64 * MIB
NEAR = 16 * MIB

# `touch` writes one byte of each page; `fill` and `copy` work in pieces of 256 KiB. All pause between pages or pieces.
GUEST = """(module
  (import "env" "native" (func $native (param i32)))
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "native") (param i32) (call $native (local.get 0)))
  (func $pause (param $n i32)
    (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  (func $touch (export "touch") (param $from i32) (param $to i32)
    (loop $l (if (i32.lt_u (local.get $from) (local.get $to)) (then
      (i32.store8 (local.get $from) (i32.const 1)) (call $pause (i32.const 15000))
      (local.set $from (i32.add (local.get $from) (i32.const 4096))) (br $l)))))
  (func (export "grow_touch") (param $pages i32) (local $at i32)
    (loop $l (if (local.get $pages) (then
      (local.set $at (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))
      (call $touch (local.get $at) (i32.add (local.get $at) (i32.const 65536)))
      (local.set $pages (i32.sub (local.get $pages) (i32.const 1))) (br $l)))))
  (func (export "fill") (param $from i32) (param $to i32)
    (loop $l (if (i32.lt_u (local.get $from) (local.get $to)) (then
      (memory.fill (local.get $from) (i32.const 7) (i32.const 262144)) (call $pause (i32.const 1000000))
      (local.set $from (i32.add (local.get $from) (i32.const 262144))) (br $l)))))
  (func (export "copy") (param $from i32) (param $to i32)
    (loop $l (if (i32.lt_u (local.get $from) (local.get $to)) (then
      (memory.copy (local.get $from) (i32.const 0) (i32.const 262144)) (call $pause (i32.const 1000000))
      (local.set $from (i32.add (local.get $from) (i32.const 262144))) (br $l)))))
  (func (export "fill_at_once") (param $from i32) (param $n i32)
    (memory.fill (local.get $from) (i32.const 7) (local.get $n))))"""


def _grow_natively(_caller, nbytes):
    """Anonymous memory of the worker's own, page by page."""
    block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    threading.kept = getattr(threading, "kept", [])
    threading.kept.append(block)
    for at in range(0, nbytes, 4096):
        block[at] = 1
        for _ in range(200):
            pass


def _start_a_thread(_caller, nbytes):
    """The same in a thread that goes on when the call has returned, slowly."""
    import select

    def grow():
        block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, nbytes, 4096):
            block[at] = 1
            if at > 40 << 20 and at % 131072 == 0:
                select.select([], [], [], 0.01)

    threading.Thread(target=grow, daemon=True).start()


@pytest.fixture
def make(make_supervisor):
    """make(native): an instance under LIMIT that may grow its memory far beyond, grown but untouched."""

    def make(native=_grow_natively, **limits):
        host = make_supervisor(**{"rss_bytes": LIMIT, "memory_bytes": 512 * MIB, **limits})
        shipped = WasmImports(functions={("env", "native"): HostFunction(in_worker(native), ("i32",))})
        return host.instantiate(host.compile(GUEST), shipped)

    return make


def resident(instance):
    with open(f"/proc/{instance.pid}/statm", "rb", buffering=0) as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def exceeded(action, limit=LIMIT, near=NEAR):
    """`action()` ends in RssExceeded with both figures, near the limit."""
    error = expect(RssExceeded, Cause.RSS, action)
    assert error.limit == limit
    assert limit < error.observed <= limit + near
    mib = f"{limit / MIB:g} MiB exceeded ({error.observed / MIB:.1f} MiB observed)"
    assert str(error) == f"WASM trap: RSS limit of {mib}"
    return error


def used_up_to(instance, target, use):
    """Have the guest use memory, by `use(instance, bytes used, bytes to use)`, until about `target` is resident."""
    used = 0
    while target - resident(instance) >= 512 * 1024:
        # Not all at once: the way there takes buffers, too.
        more = min(8 * MIB, (target - resident(instance)) // (256 * 1024) * 256 * 1024)
        use(instance, used, more)
        used += more
    return used


USES = {
    "touching page by page": lambda i, used, more: i.call("touch", [PAGE + used, PAGE + used + more]),
    "memory.grow and touching": lambda i, used, more: i.call("grow_touch", [more // PAGE]),
    "memory.fill": lambda i, used, more: i.call("fill", [PAGE + used, PAGE + used + more]),
    "memory.copy": lambda i, used, more: i.call("copy", [4 * PAGE + used, 4 * PAGE + used + more]),
    "memory_write": lambda i, used, more: i.memory_write(PAGE + used, bytes(more)),
    "native memory": lambda i, used, more: i.call("native", [more]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_just_under_and_just_over(make, use):
    """Up to two MiB below the limit all works; six MiB more end it, within 16 MiB, and for good."""
    instance = make()
    instance.call("grow", [4000])
    used = used_up_to(instance, LIMIT - 2 * MIB, use)
    assert LIMIT - 3 * MIB < resident(instance) < LIMIT
    for _ in range(3):
        assert instance.call("ok") == [I32(42)]

    def over():
        use(instance, used, 6 * MIB)
        eventually(lambda: not instance.alive)  # a call so short that nobody looked: whoever looks at the idle does
        instance.call("ok")

    exceeded(over)
    gone(instance, RssExceeded, Cause.RSS)


@pytest.mark.parametrize(
    ("call", "args"), [("touch", [0, 400 * MIB]), ("fill", [0, 400 * MIB]), ("copy", [0, 400 * MIB])]
)
def test_one_call_that_goes_on(make, call, args):
    """A single call which would use 400 MiB ends within 16 MiB of its limit."""
    instance = make()
    instance.call("grow", [8000])
    error = exceeded(lambda: instance.call(call, args))
    assert error.pid == instance.pid


def test_as_fast_as_it_can(make):
    """One instruction that fills 500 MiB is stopped on its way; how far it comes is the machine's."""
    instance = make()
    instance.call("grow", [8000])
    exceeded(lambda: instance.call("fill_at_once", [0, 500 * MIB]), near=256 * MIB)


@pytest.mark.parametrize("how", ["call", "call_many", "memory_write", "func"])
def test_a_page_a_call(make, how):
    """Many calls, each too short to be looked at, add up to the same verdict."""
    instance = make()
    instance.call("grow", [8000])
    used = used_up_to(instance, LIMIT - 4 * MIB, USES["touching page by page"])
    touch = instance.func("touch")
    use = {
        "call": lambda at: instance.call("touch", [at, at + 1]),
        "call_many": lambda at: instance.call_many("touch", [[at, at + 1], [at + 4096, at + 4097]]),
        "memory_write": lambda at: instance.memory_write(at, b"x"),
        "func": lambda at: touch(at, at + 1),
    }[how]

    def over():
        for at in range(PAGE + used, 500 * MIB, 4096):
            use(at)

    exceeded(over)


def test_a_page_a_call_while_no_core_is_free(make, monkeypatch):
    """Whoever gives way until the worker has answered never waits, and the worker did not sleep meanwhile: it is looked
    at all the same."""
    instance = make()
    instance.call("grow", [8000])
    touch = instance.func("touch")
    replies = instance._handle.ends.replies
    monkeypatch.setattr(instance._talk.cores, "most", 0)
    monkeypatch.setattr("pdsandbox.platform.os_.give_way", lambda: select.select([replies], [], [], PATIENCE_S))

    def over():
        for at in range(PAGE, 500 * MIB, 4096):
            touch(at, at + 1)

    exceeded(over)


def test_one_write_that_goes_on(make):
    """400 MiB at once: it is seen on the way, within 16 MiB, however fast the kernel copies."""
    instance = make()
    instance.call("grow", [8000])
    data = b"x" * (400 * MIB)
    error = exceeded(lambda: instance.memory_write(0, data))
    assert error.pid == instance.pid


def test_writes_of_a_host_function(make_supervisor):
    """Nobody waits for the worker while a host function writes into its memory; it is looked at all the same."""
    host = make_supervisor(rss_bytes=LIMIT, memory_bytes=512 * MIB)

    def write(caller):
        for at in range(0, 400 * MIB, 4096):
            caller.memory_write(at, b"x")

    source = """(module (import "env" "write" (func $write)) (memory (export "memory") 8000)
      (func (export "ok")) (func (export "run") (call $write)))"""
    imports = WasmImports(functions={("env", "write"): HostFunction(write)})
    instance = host.instantiate(host.compile(source), imports)
    instance.memory_read(0, 1)
    exceeded(lambda: instance.call("run"))
    gone(instance, RssExceeded, Cause.RSS)


def test_pages_between_host_calls(make_supervisor):
    """Host calls answered so fast that nobody ever waits do not hide what the guest uses between them."""
    host = make_supervisor(rss_bytes=LIMIT, memory_bytes=512 * MIB)
    source = """(module (import "env" "tell" (func $tell)) (memory 8000)
      (func (export "ok"))
      (func (export "run") (local $at i32)
        (loop $l (call $tell)
          (i32.store8 (local.get $at) (i32.const 1)) (i32.store8 offset=4096 (local.get $at) (i32.const 1))
          (local.set $at (i32.add (local.get $at) (i32.const 8192)))
          (br_if $l (i32.lt_u (local.get $at) (i32.const 419430400))))))"""
    imports = WasmImports(functions={("env", "tell"): HostFunction(lambda _caller: None)})
    instance = host.instantiate(host.compile(source), imports)
    for _ in range(100):
        instance.call("ok")  # so closely that the next one spins
    exceeded(lambda: instance.call("run"))


def test_growing_is_not_using(make):
    """Memory that was grown and never touched is not resident: eight times the limit of it passes."""
    instance = make()
    assert instance.call("grow", [8000]) == [I32(1)]
    assert instance.call("ok") == [I32(42)]
    assert instance.memory_read(400 * MIB, 16) == bytes(16)


START = GUEST.replace('(func (export "ok")', '(func $s (call $begin)) (start $s) (func (export "ok")')


@pytest.mark.parametrize(
    "begin",
    [
        "(drop (memory.grow (i32.const 8000))) (call $touch (i32.const 0) (i32.const 419430400))",
        "(call $native (i32.const 419430400))",
    ],
    ids=["guest memory", "native memory"],
)
def test_a_start_function(make_supervisor, begin):
    """Growth while instantiating keeps its class, cause and figures."""
    host = make_supervisor(rss_bytes=LIMIT, memory_bytes=512 * MIB)
    module = host.compile(START.replace("(call $begin)", begin))
    shipped = WasmImports(functions={("env", "native"): HostFunction(in_worker(_grow_natively), ("i32",))})
    exceeded(lambda: host.instantiate(module, shipped))


def test_tables_while_instantiating(make_supervisor):
    """Tables that the engine writes itself count as well: 320 MB from 150 bytes, and one that fits."""
    host = make_supervisor(rss_bytes=LIMIT, memory_bytes=512 * MIB, table_elements=None)
    table = "(table 10000000 funcref (ref.func $f))"
    module = host.compile("(module (func $f) " + table * 4 + ")")
    exceeded(lambda: host.instantiate(module), near=256 * MIB)  # the engine writes as fast as it can
    fits = host.compile("(module (func $f) " + table.replace("10000000", "1000000") * 2 + ")")
    assert host.instantiate(fits).alive


def test_an_idle_worker_that_grows(make):
    """A thread that native code left behind is seen while no call runs, with the same error at the next use."""
    instance = make(_start_a_thread, hardening="off")
    instance.call("native", [400 * MIB])
    eventually(lambda: not instance.alive)
    exceeded(lambda: instance.call("ok"))
    gone(instance, RssExceeded, Cause.RSS)


def test_without_a_limit(make):
    """`rss_bytes=None`: 150 MiB, and nobody minds."""
    instance = make(rss_bytes=None)
    instance.call("grow", [4000])
    instance.call("fill_at_once", [0, 150 * MIB])
    assert resident(instance) > 150 * MIB
    assert instance.call("ok") == [I32(42)]


def test_growth_while_a_host_function_has_the_thread(make_supervisor):
    """The worker's own threads may go on meanwhile: that is seen at the latest when nobody has its turn any more."""
    host = make_supervisor(rss_bytes=LIMIT, memory_bytes=512 * MIB, hardening="off")
    functions = {
        ("env", "native"): HostFunction(in_worker(_start_a_thread), ("i32",)),
        ("env", "wait"): HostFunction(lambda _caller: eventually(lambda: not 0 < resident(instance) < LIMIT)),
    }
    source = """(module (import "env" "native" (func $native (param i32))) (import "env" "wait" (func $wait))
      (func (export "run") (call $native (i32.const 419430400)) (call $wait)))"""
    instance = host.instantiate(host.compile(source), WasmImports(functions=functions))

    def over():
        instance.call("run")
        eventually(lambda: not instance.alive)
        instance.call("run")

    exceeded(over)
