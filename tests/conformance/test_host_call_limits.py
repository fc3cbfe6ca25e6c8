"""How much a guest may ask of its host within one call: `host_calls`, `host_call_bytes`, `message_bytes`."""

from __future__ import annotations

import pytest

from pdsandbox import I32, CallError, Cause, WasmImports

GUEST = """(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 16)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "log") (param $count i32) (param $bytes i32)
    (loop $again
      (call $log (i32.const 0) (i32.const 0) (local.get $bytes))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $again (i32.gt_s (local.get $count) (i32.const 0)))))
  (func (export "send") (param $envelope i32) (param $payload i32) (result i32)
    (call $send (i32.const 0) (local.get $envelope) (i32.const 0) (local.get $payload))))"""


@pytest.fixture
def logged():
    return []


@pytest.fixture
def make(host_factory, instantiate, logged):
    def make(**limits):
        imports = WasmImports(
            pd_log=lambda level, message: logged.append(len(message)),
            pd_send=lambda envelope, payload: logged.append(len(envelope) + len(payload)) or 0,
        )
        return instantiate(GUEST, imports, on=host_factory(**limits))

    return make


def over(instance, limit, *call):
    """The call ends with the limit's figure, and the instance stays usable."""
    with pytest.raises(CallError) as caught:
        instance.call(*call)
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.limit == limit
    assert instance.alive
    assert instance.call("ok", []) == [I32(42)]


def test_host_calls_just_under_and_just_over(make, logged):
    """Exactly `host_calls` pass; one more ends the call, and its callback is not called."""
    instance = make(host_calls=100)
    instance.call("log", [100, 1])
    assert len(logged) == 100
    logged.clear()
    over(instance, 100, "log", [101, 1])
    assert len(logged) == 100


def test_host_calls_are_counted_per_call(make, logged):
    """The next call starts from nothing, also after one that went over."""
    instance = make(host_calls=10)
    for _ in range(3):
        instance.call("log", [10, 1])
        over(instance, 10, "log", [11, 1])
    instance.call("log", [10, 1])


def test_host_calls_count_stubs_too(host_factory, instantiate, wat):
    """A guest cannot turn for ever through functions that do nothing."""
    instance = instantiate(wat("endless_host_calls"), on=host_factory(host_calls=1000, fuel=None))
    over(instance, 1000, "run", [])


def test_a_guest_cannot_fill_the_log(host_factory, instantiate, wat):
    """An endless logger is stopped by the bytes that it hands over."""
    total = [0]

    def log(level, message):
        total[0] += len(message)

    limit = 1 << 20
    instance = instantiate(
        wat("endless_logging"), WasmImports(pd_log=log), on=host_factory(host_call_bytes=limit, fuel=None)
    )
    over(instance, limit, "run", [])
    assert limit // 2 < total[0] <= limit


def test_host_call_bytes_just_under_and_just_over(make, logged):
    """Messages of together less than `host_call_bytes` pass; of together more they end the call."""
    limit = 100_000
    instance = make(host_call_bytes=limit)
    instance.call("log", [10, limit // 10 - 256])
    assert len(logged) == 10
    over(instance, limit, "log", [10, limit // 10 + 1])
    over(instance, limit, "log", [1, limit + 1])
    instance.call("log", [1, limit - 256])


def test_envelope_and_payload_are_counted_together(make):
    """Both parts of one `pd_send` are bytes handed over."""
    limit = 100_000
    instance = make(host_call_bytes=limit)
    assert instance.call("send", [limit // 2 - 256, limit // 2 - 256]) == [I32(0)]
    over(instance, limit, "send", [limit // 2, limit // 2 + 1])


def test_message_bytes_just_under_and_just_over(make, logged):
    """One host call may carry nearly `message_bytes`, and as many of them as the other limits allow, not more."""
    limit = 64 << 10
    instance = make(message_bytes=limit)
    instance.call("log", [5, limit - 256])
    assert logged == [limit - 256] * 5
    over(instance, limit, "log", [1, limit + 1])
    assert instance.call("send", [limit // 2 - 128, limit // 2 - 128]) == [I32(0)]
    over(instance, limit, "send", [limit // 2, limit // 2 + 1])


def test_limits_can_be_switched_off(make, logged):
    """None means that neither calls nor bytes are counted."""
    instance = make(host_calls=None, host_call_bytes=None)
    instance.call("log", [3000, 1000])
    assert len(logged) == 3000
