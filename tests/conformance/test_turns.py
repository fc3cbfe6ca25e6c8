"""Threads: calls on one instance take turns, calls on several run side by side, every answer is right."""

from __future__ import annotations

import threading

import pytest

from pdsandbox import I32, CallError, Capability, Cause, HostFunction, WasmImports

COUNTER = """(module (import "env" "callback" (func $callback (param i32) (result i32)))
  (memory (export "memory") 1) (global $n (mut i32) (i32.const 0))
  (func (export "next") (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "ask") (param i32) (result i32) (call $callback (local.get 0))))"""


def importing(fn):
    """Imports with `fn` as env.callback."""
    return WasmImports(functions={("env", "callback"): HostFunction(fn, ("i32",), ("i32",))})


def together(*works):
    """Run each in a thread of its own, all at once; re-raise the first failure."""
    barrier = threading.Barrier(len(works))
    failures = []

    def run(work):
        try:
            barrier.wait()
            work()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_two_threads_on_one_instance_take_turns(instantiate):
    """No call is lost or run twice, and each thread sees its own answers."""
    instance = instantiate(COUNTER, importing(lambda caller, value: value + 1))
    counted = []

    def work(base):
        for i in range(300):
            counted.append(instance.call("next", [])[0].value)
            assert instance.call("add", [base, i]) == [I32(base + i)]
            assert instance.call("ask", [base + i]) == [I32(base + i + 1)]

    together(lambda: work(0), lambda: work(1_000_000))
    assert sorted(counted) == list(range(1, 601))


def test_a_call_waits_for_the_one_that_runs(instantiate):
    """A second thread's call is served after the first one's callback has returned, not refused."""
    inside, released, order = threading.Event(), threading.Event(), []

    def callback(caller, value):
        inside.set()
        assert released.wait(60)
        order.append("callback")
        return value

    instance = instantiate(COUNTER, importing(callback))

    def first():
        assert instance.call("ask", [1]) == [I32(1)]

    def second():
        assert inside.wait(60)
        waiting.set()
        assert instance.call("add", [1, 2]) == [I32(3)]
        order.append("second")

    def third():
        assert waiting.wait(60)
        released.set()

    waiting = threading.Event()
    together(first, second, third)
    assert order == ["callback", "second"]


def test_callbacks_run_in_the_thread_of_the_call(instantiate):
    """Thread-local state of the caller is there."""
    seen = []
    instance = instantiate(COUNTER, importing(lambda caller, value: seen.append(threading.get_ident()) or value))
    idents = []

    def work():
        idents.append(threading.get_ident())
        instance.call("ask", [1])

    together(work, work)
    assert sorted(seen) == sorted(idents)


@pytest.mark.requires(Capability.INDEPENDENCE)
def test_instances_run_side_by_side(instantiate):
    """Two instances whose callbacks wait for each other both come to an end."""
    barrier = threading.Barrier(2)

    def callback(caller, value):
        barrier.wait(60)
        return value

    one, other = (instantiate(COUNTER, importing(callback)) for _ in range(2))
    together(lambda: one.call("ask", [1]), lambda: other.call("ask", [2]))


def test_one_host_for_many_threads(host):
    """Compiling, instantiating, calling and closing at the same time."""

    def work(base):
        for i in range(10):
            source = f'(module (func (export "f") (result i32) (i32.const {base + i})))'
            with host.instantiate(host.compile(source)) as instance:
                assert instance.call("f", []) == [I32(base + i)]

    together(*(lambda base=base: work(base) for base in (0, 5, 100, 1000)))


def test_batches_and_memory_take_turns_too(instantiate):
    """Reads, writes and batches from several threads mix with calls."""
    instance = instantiate(COUNTER, importing(lambda caller, value: value))

    def memory():
        for i in range(100):
            instance.memory_write(8 * i, i.to_bytes(8, "little"))
            assert instance.memory_read(8 * i, 8) == i.to_bytes(8, "little")

    def batches():
        for i in range(30):
            assert instance.call_many("add", [(i, j) for j in range(50)]) == [[I32(i + j)] for j in range(50)]

    def calls():
        for i in range(100):
            assert instance.func("add")(i, i) == 2 * i

    together(memory, batches, calls)


def test_closing_from_another_thread_during_a_call(instantiate):
    """The call ends with CallError, cause CLOSED, and nobody hangs."""
    inside, closed = threading.Event(), threading.Event()

    def callback(caller, value):
        inside.set()
        assert closed.wait(60)
        return value

    instance = instantiate(COUNTER, importing(callback))
    causes = []

    def call():
        with pytest.raises(CallError) as caught:
            instance.call("ask", [1])
        causes.append(caught.value.cause)

    def close():
        assert inside.wait(60)
        instance.close()
        closed.set()

    together(call, close)
    assert causes == [Cause.CLOSED]
    assert not instance.alive
