"""What is dropped without being closed goes away by itself: instances, modules, whole supervisors."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from leaks import Holdings, fds
from programs import WORKER, Held, named
from userland import ADD, LOOP, add

from pdsandbox import HostFunction, Limits, Supervisor, WasmImports


def memfds():
    """How many artifacts this process holds."""
    return sum(target.startswith("/memfd:") for target in fds().values())


def housekeepers():
    """The threads that serve supervisors in this process."""
    return {thread for thread in threading.enumerate() if thread.name == "pdsandbox"}


@pytest.mark.parametrize("used", ["not at all", "to compile", "to instantiate", "in a call", "as a closed instance's"])
def test_a_dropped_supervisor(used):
    """Every process, descriptor and thread is gone, however far it had come."""
    before, others = Holdings(), housekeepers()
    host = Supervisor(spares=2)
    if used != "not at all":
        module = host.compile(ADD)
        if used == "to instantiate":
            instance = host.instantiate(module)
        elif used == "in a call":
            instance = host.instantiate(module)
            assert instance.func("add")(1, 2) == 3
        elif used == "as a closed instance's":
            instance = host.instantiate(module)
            instance.close()
    gone = weakref.ref(host)
    threads = housekeepers() - others
    module = instance = host = None
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert before.extra() == []


def test_a_dropped_instance():
    """Its worker ends, its descriptors are closed; the supervisor goes on."""
    with Supervisor(spares=0) as host:
        module = host.compile(ADD)
        with host.instantiate(module):
            pass
        before = Holdings()
        for _ in range(3):
            instance = host.instantiate(module)
            with Held({instance.pid}) as held:
                del instance
                gc.collect()
                assert held.wait_gone() == []
        assert before.extra() == []
        assert add(host) == 3


def test_an_instance_in_a_cycle():
    """Also when only the garbage collector can tell that nobody uses it: host functions may refer to their instance."""

    def cycle():
        def whoami(caller):
            return instance.pid

        imports = WasmImports(functions={("m", "f"): HostFunction(whoami, results=("i32",))})
        wat = '(module (import "m" "f" (func $f (result i32))) (func (export "run") (result i32) (call $f)))'
        instance = host.instantiate(host.compile(wat), imports)
        return instance.func("run")()

    gc.disable()
    try:
        with Supervisor(spares=0) as host, Held({cycle()}) as held:
            assert held.running() == [WORKER]
            gc.collect()
            assert held.wait_gone() == []
    finally:
        gc.enable()


def test_an_instance_that_outlives_its_supervisors_name():
    """It keeps what it needs: calls go on after the supervisor's last name is gone, and it all ends with it."""
    before = Holdings()
    host = Supervisor(spares=0)
    instance = host.instantiate(host.compile(ADD))
    del host
    gc.collect()
    outcome = _answer(instance)
    assert outcome == [3] or outcome[0] == "CLOSED", "it answers, or says that its supervisor is gone"
    del instance
    gc.collect()
    assert before.extra() == []


def _answer(instance):
    try:
        return [instance.func("add")(1, 2)]
    except Exception as exc:
        return [exc.cause.name]


def test_a_dropped_module(wait_for):
    """Its artifact is closed with the last that uses it, once the cache lets go: modules, and instances."""
    gc.collect()
    before = memfds()
    with Supervisor(spares=0, cache_bytes=0) as host:
        add(host)
        wait_for(lambda: memfds() == before)  # by the housekeeper, some time after it was dropped
        module = host.compile(ADD)
        same = host.compile(ADD)
        instance = host.instantiate(module)
        assert memfds() == before + 2
        del module, same
        gc.collect()
        wait_for(lambda: memfds() == before + 1)
        assert instance.func("add")(1, 2) == 3
        del instance
        gc.collect()
        wait_for(lambda: memfds() == before)


def test_dropped_in_the_middle_of_a_call():
    """The thread of the call holds the instance: it goes on, and ends as calls do; then everything is gone."""
    before = Holdings()
    running, outcome = threading.Event(), []

    def run():
        host = Supervisor(limits=Limits(wall_s=1.0, fuel=None), spares=0)
        instance = host.instantiate(host.compile(LOOP), WasmImports(pd_log=lambda *_: running.set()))
        del host
        try:
            instance.call("run")
        except Exception as exc:
            outcome.append(exc.cause.name)

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(60)
    gc.collect()
    thread.join(60)
    assert outcome in (["WALL"], ["CLOSED"])
    gc.collect()
    assert before.extra() == []


def test_many_are_dropped_by_many_threads():
    """Finalisers run in any thread at any moment, and none of them blocks or does I/O there."""
    others = {*named(WORKER)}
    with Supervisor(spares=0) as host:
        module = host.compile(ADD)
        errors = []

        def drop():
            try:
                for _ in range(10):
                    assert host.instantiate(module).func("add")(1, 2) == 3
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=drop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        with Held({*named(WORKER)} - others) as held:
            assert held.wait_gone() == []
