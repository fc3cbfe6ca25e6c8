"""The other limits, across the pipe: just under passes, just over gives exactly its error and no more."""

from __future__ import annotations

import functools

import pytest
from supervising import GUEST, MIB, PAGE, expect, imports, make_guest

from pdsandbox import (
    I32,
    CallError,
    Cause,
    FuelExhausted,
    HostFunction,
    InstantiationError,
    Trap,
    TrapCode,
    WasmImports,
    in_worker,
)

SENDER = """(module
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 32)
  (func (export "ok") (result i32) (i32.const 42))
  (func $many (export "many") (param $count i32) (param $envelope i32) (param $payload i32)
    (loop $l (if (local.get $count) (then
      (drop (call $send (i32.const 0) (local.get $envelope) (i32.const 0) (local.get $payload)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1))) (br $l)))))
  (func (export "for_ever") (call $many (i32.const -1) (i32.const 1) (i32.const 65536)))
  (func (export "empty_for_ever") (call $many (i32.const -1) (i32.const 0) (i32.const 0)))
  (func (export "log") (param $bytes i32) (call $log (i32.const 1) (i32.const 0) (local.get $bytes))))"""


class Outbox:
    """What a service would keep of its guests' messages."""

    def __init__(self):
        self.messages = []

    def send(self, envelope, payload):
        self.messages.append((envelope, payload))
        return 0

    @property
    def nbytes(self):
        return sum(len(envelope) + len(payload) for envelope, payload in self.messages)


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def make_sender(make_supervisor, outbox):
    def make(**limits):
        host = make_supervisor(**limits)
        return host.instantiate(host.compile(SENDER), WasmImports(pd_send=outbox.send))

    return make


def over(instance, limit, *call):
    """The call ends as the guest's doing; the instance answers on."""
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call(*call))
    assert error.limit == limit
    assert instance.call("ok") == [I32(42)]
    return error


def test_a_guest_cannot_fill_the_outbox(make_sender, outbox):
    """Envelopes and payloads of one call together stay within `host_call_bytes`, however they are cut."""
    limit = MIB
    instance = make_sender(host_call_bytes=limit, host_calls=None)
    over(instance, limit, "for_ever")
    assert limit - PAGE - 1000 < outbox.nbytes <= limit
    assert {len(payload) for _, payload in outbox.messages} == {65536}


def test_a_guest_cannot_fill_the_outbox_with_nothing(make_sender, outbox):
    """Empty messages cost something, too: `host_call_bytes` counts their arguments, `host_calls` them."""
    instance = make_sender(host_call_bytes=100_000, host_calls=None)
    over(instance, 100_000, "empty_for_ever")
    assert len(outbox.messages) <= 100_000 // 64
    outbox.messages.clear()
    instance = make_sender(host_call_bytes=None, host_calls=700)
    over(instance, 700, "empty_for_ever")
    assert len(outbox.messages) == 700


def test_host_call_bytes_of_sends(make_sender, outbox):
    """Exactly the limit passes, with 64 bytes of arguments each; one byte more does not, nor is it delivered."""
    limit = 10 * (64 + 1000 + 5000)
    instance = make_sender(host_call_bytes=limit)
    instance.call("many", [10, 1000, 5000])
    assert outbox.nbytes == 60_000
    instance.call("many", [10, 1000, 5000])  # each call has all of it
    assert outbox.nbytes == 120_000
    over(instance, limit, "many", [11, 1000, 5000])
    over(instance, limit, "many", [1, 0, limit - 63])
    assert outbox.nbytes == 180_000
    instance.call("many", [1, 0, limit - 64])


def test_message_bytes_of_a_send(make_sender, outbox):
    """One message of exactly `message_bytes` passes, one byte more is refused before the callback sees any of it."""
    instance = make_sender(message_bytes=100_000)
    instance.call("many", [3, 40_000, 60_000])
    over(instance, 100_000, "many", [1, 40_001, 60_000])
    over(instance, 100_000, "log", [100_001])
    instance.call("log", [100_000])
    assert outbox.nbytes == 300_000


WIDE = f"""(module (func (export "wide") (param{" i64" * 300}) (result i64) (local.get 299)))"""


def test_message_bytes_of_arguments(make_supervisor):
    """Arguments of exactly the limit pass; a call whose arguments take more is refused before anything is sent."""
    tight, wide = make_supervisor(message_bytes=300 * 16 - 1), make_supervisor(message_bytes=300 * 16)
    row = list(range(300))
    assert wide.instantiate(wide.compile(WIDE)).func("wide")(*row) == 299
    instance = tight.instantiate(tight.compile(WIDE))
    for use in (lambda: instance.call("wide", row), lambda: instance.call_many("wide", [row])):
        error = expect(CallError, Cause.USAGE, use)
        assert (error.limit, error.observed) == (4799, 4800)
    assert instance.alive


def test_a_batch_larger_than_a_message(make_supervisor):
    """`call_many` takes any number of rows: several messages, one answer, in order."""
    instance = make_guest(make_supervisor(message_bytes=4096))
    assert instance.call_many("add", [(i, 1) for i in range(2000)]) == [[I32(i + 1)] for i in range(2000)]


def test_host_calls_of_a_batch_that_takes_several_messages(make_supervisor):
    """The rows of one `call_many` share `host_calls`, wherever its messages end; so do they its bytes."""
    told = []
    instance = make_guest(make_supervisor(message_bytes=4096, host_calls=300), tell=told.append)
    assert instance.call_many("tell", [[i] for i in range(300)]) == [[]] * 300
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call_many("tell", [[i] for i in range(310)]))
    assert (error.limit, error.row, len(error.results)) == (300, 300, 300)
    assert len(told) == 600
    assert instance.call("ok") == [I32(42)]
    by_bytes = make_guest(make_supervisor(message_bytes=4096, host_call_bytes=300 * 16), tell=told.append)
    assert by_bytes.call_many("tell", [[i] for i in range(300)]) == [[]] * 300
    error = expect(CallError, Cause.HOST_FUNCTION, lambda: by_bytes.call_many("tell", [[i] for i in range(301)]))
    assert (error.limit, error.row) == (4800, 300)


def test_fuel_of_a_batch_that_takes_several_messages(make_supervisor):
    """One budget for all rows, over all messages: what they use passes, half of it ends half-way."""
    instance = make_guest(make_supervisor(message_bytes=4096))
    rows = [(i, 1) for i in range(1000)]
    before = instance.fuel_consumed()
    instance.call_many("add", rows)
    used = instance.fuel_consumed() - before
    assert len(instance.call_many("add", rows, fuel=used)) == 1000
    error = expect(FuelExhausted, Cause.FUEL, lambda: instance.call_many("add", rows, fuel=used // 2))
    assert error.results == [[I32(i + 1)] for i in range(error.row)]
    assert 495 <= error.row <= 505  # fuel is looked at when a function begins


@pytest.mark.parametrize("where", ["supervisor", "worker"])
def test_host_calls_of_a_start_function(make_supervisor, where):
    """They count while instantiating: exactly the limit passes, one more is an InstantiationError."""
    fn = (lambda _caller: None) if where == "supervisor" else in_worker(_nothing)
    offered = WasmImports(functions={("env", "f"): HostFunction(fn)})
    source = '(module (import "env" "f" (func $f)) (func $s {calls}) (start $s))'
    for count, passes in ((5, True), (6, False)):
        host = make_supervisor(host_calls=5)
        module = host.compile(source.format(calls="(call $f)" * count))
        if passes:
            assert host.instantiate(module, offered).alive
        else:
            error = expect(
                InstantiationError, Cause.HOST_FUNCTION, functools.partial(host.instantiate, module, offered)
            )
            assert error.limit == 5


def _nothing(_caller):
    pass


@pytest.mark.parametrize("where", ["supervisor", "worker"])
def test_host_calls_count_wherever_they_run(make_supervisor, where):
    """A function in the worker is a host call as well."""
    fn = (lambda _caller: None) if where == "supervisor" else in_worker(_nothing)
    host = make_supervisor(host_calls=50)
    source = """(module (import "env" "f" (func $f)) (func (export "ok") (result i32) (i32.const 42))
      (func (export "run") (param $n i32)
        (loop $l (call $f) (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"""
    instance = host.instantiate(host.compile(source), WasmImports(functions={("env", "f"): HostFunction(fn)}))
    instance.call("run", [50])
    over(instance, 50, "run", [51])
    instance.call("run", [50])


OVER = {
    "memory_bytes": ({"memory_bytes": 4 * PAGE}, "(memory 4)", "(memory 5)"),
    "memories": ({"memories": 2}, "(memory 1) (memory 1)", "(memory 1) (memory 1) (memory 1)"),
    "table_elements": ({"table_elements": 100}, "(table 100 funcref)", "(table 101 funcref)"),
}


@pytest.mark.parametrize(("limits", "fits", "too_much"), OVER.values(), ids=OVER)
def test_what_a_module_declares(make_supervisor, limits, fits, too_much):
    """A minimum at the limit passes; above it, InstantiationError, cause LINK, and the next instance works."""
    host = make_supervisor(**limits)
    assert host.instantiate(host.compile(f"(module {fits})")).alive
    module = host.compile(f"(module {too_much})")
    expect(InstantiationError, Cause.LINK, lambda: host.instantiate(module))
    assert host.instantiate(host.compile(f"(module {fits})")).alive


def test_memory_grows_to_its_limit_within_the_rss_limit(make_supervisor):
    """With `rss_bytes` far below `memory_bytes`, growing answers -1 only at `memory_bytes`, and nothing dies of it."""
    host = make_supervisor(rss_bytes=64 * MIB, memory_bytes=1024 * MIB)
    source = """(module (memory (export "memory") 1)
      (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""
    instance = host.instantiate(host.compile(source))
    assert instance.call("grow", [16383]) == [I32(1)]
    assert instance.call("grow", [1]) == [I32(-1)]
    assert instance.memory_read(1024 * MIB - 16, 16) == bytes(16)


def test_stack_bytes_in_every_kind_of_call(make_supervisor):
    """Endless recursion is STACK_OVERFLOW in a call, a batch and a start function; the process does not die of it."""
    host = make_supervisor(stack_bytes=64 << 10)
    recursive = '(module (func $f (export "f") (call $f)) (func (export "ok") (result i32) (i32.const 42)) {start})'
    instance = host.instantiate(host.compile(recursive.format(start="")))
    for use in (lambda: instance.call("f"), lambda: instance.call_many("f", [[]])):
        assert expect(Trap, Cause.GUEST_TRAP, use).trap_code is TrapCode.STACK_OVERFLOW
    assert instance.call("ok") == [I32(42)]
    module = host.compile(recursive.format(start="(start $f)"))
    error = expect(InstantiationError, Cause.GUEST_TRAP, lambda: host.instantiate(module))
    assert error.trap_code is TrapCode.STACK_OVERFLOW


def test_all_limits_that_can_be_off(make_supervisor):
    """Every limit that may be None is: the guest runs as before."""
    off = ("wall_s", "rss_bytes", "memory_bytes", "table_elements", "host_calls", "host_call_bytes", "compile_wall_s")
    host = make_supervisor(**dict.fromkeys((*off, "compile_rss_bytes", "fuel")))
    instance = host.instantiate(host.compile(GUEST), imports(ask=lambda value: value + 1))
    assert instance.call("add", [1, 2]) == [I32(3)]
    assert instance.call_many("ask", [[1], [2]]) == [[I32(2)], [I32(3)]]
    assert instance.memory_read(0, PAGE) == bytes(PAGE)
    expect(Trap, Cause.GUEST_TRAP, lambda: instance.call("trap"))
    assert instance.call("ok") == [I32(42)]
