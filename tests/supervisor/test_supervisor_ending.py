"""kill() and close() from another thread, at every point where an operation can be, and what everybody hears then."""

from __future__ import annotations

import threading

import pytest
from supervising import (
    GUEST,
    PATIENCE_S,
    Thread,
    eventually,
    expect,
    gone,
    imports,
    make_guest,
    stop_process,
    together,
    wait_process_ends,
)

from pdsandbox import I32, CallError, Cause, CompileError, InstantiationError, WasmImports, WorkerCrashed

END = {
    "kill": (lambda instance: instance.kill(), WorkerCrashed, Cause.CANCELLED),
    "close": (lambda instance: instance.close(), CallError, Cause.CLOSED),
}
EACH_END = pytest.mark.parametrize(("end", "cls", "cause"), END.values(), ids=END)


class Inside:
    """A host function that says when it is entered, and returns when it is let go."""

    def __init__(self):
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, value):
        self.entered.set()
        assert self.leave.wait(PATIENCE_S)
        return value


USES = {
    "call": lambda instance: instance.call("run"),
    "func": lambda instance: instance.func("run")(),
    "call_many": lambda instance: instance.call_many("run_if", [[0]] * 100 + [[1]]),
}


@EACH_END
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_during_a_call(host, end, cls, cause, use):
    """The call ends with the cause at once, the worker is gone when kill or close returns, a neighbour is not."""
    running = threading.Event()
    instance, neighbour = make_guest(host, tell=lambda _: running.set()), make_guest(host)
    thread = Thread(lambda: use(instance))
    assert running.wait(PATIENCE_S)
    end(instance)
    wait_process_ends(instance.pid)
    assert not instance.alive
    expect(cls, cause, thread.result)
    gone(instance, cls, cause)
    assert neighbour.call("ok") == [I32(42)]


@EACH_END
def test_during_a_host_function(host, end, cls, cause):
    """It does not wait for the host function; the call ends with the cause when that returns, whatever it returns."""
    inside = Inside()
    instance = make_guest(host, ask=inside)
    thread = Thread(lambda: instance.call("ask", [1]))
    assert inside.entered.wait(PATIENCE_S)
    end(instance)
    wait_process_ends(instance.pid)
    assert thread.running
    inside.leave.set()
    expect(cls, cause, thread.result)
    gone(instance, cls, cause)


@EACH_END
@pytest.mark.parametrize("operation", ["memory_read", "memory_write", "first call"])
@pytest.mark.usefixtures("piped")
def test_during_an_operation_that_is_not_answered(host, end, cls, cause, operation):
    """A worker that is stopped keeps nobody from ending it, nor from hearing of it."""
    instance = make_guest(host)
    stop_process(instance.pid)
    use = {
        "memory_read": lambda: instance.memory_read(0, 60_000),
        "memory_write": lambda: instance.memory_write(0, bytes(60_000)),
        "first call": lambda: instance.call("ok"),
    }[operation]
    thread = Thread(use)
    eventually(lambda: instance._talk.busy)
    end(instance)
    expect(cls, cause, thread.result)
    gone(instance, cls, cause)


@EACH_END
def test_while_waiting_for_the_turn(host, end, cls, cause):
    """Everybody in the queue hears the cause, once the one with the turn has left."""
    inside = Inside()
    instance = make_guest(host, ask=inside)
    first = Thread(lambda: instance.call("ask", [1]))
    assert inside.entered.wait(PATIENCE_S)
    waiting = [Thread(lambda: instance.call("ok")) for _ in range(5)]
    waiting.append(Thread(lambda: instance.memory_read(0, 1)))
    waiting.append(Thread(lambda: instance.call_many("ok", [[]])))
    waiting.append(Thread(lambda: instance.set_fuel(1)))
    end(instance)
    inside.leave.set()
    for thread in (first, *waiting):
        expect(cls, cause, thread.result)


@EACH_END
def test_from_many_threads_at_once(host, end, cls, cause):
    """Ending an instance from sixteen threads during a call is as good as once."""
    running = threading.Event()
    instance = make_guest(host, tell=lambda _: running.set())
    thread = Thread(lambda: instance.call("run"))
    assert running.wait(PATIENCE_S)
    together(*[lambda: end(instance)] * 16)
    expect(cls, cause, thread.result)
    end(instance)
    gone(instance, cls, cause)


def test_the_first_end_wins(host):
    """After kill, close changes nothing, and the other way round; both may be called again and again."""
    killed, closed = make_guest(host), make_guest(host)
    for _ in range(2):
        killed.kill()
        killed.close()
        closed.close()
        closed.kill()
    gone(killed, WorkerCrashed, Cause.CANCELLED)
    gone(closed, CallError, Cause.CLOSED)


def test_a_with_block_ends_a_call_of_another_thread(host):
    """Leaving the block closes, also when a call is under way elsewhere."""
    running = threading.Event()
    with make_guest(host, tell=lambda _: running.set()) as instance:
        thread = Thread(lambda: instance.call("run"))
        assert running.wait(PATIENCE_S)
    expect(CallError, Cause.CLOSED, thread.result)


# --- the whole supervisor ---


def test_closing_the_supervisor_during_calls(make_supervisor):
    """Running, waiting and later calls of all its instances: CallError, CLOSED; no worker is left when it returns."""
    host = make_supervisor()
    inside, running = Inside(), threading.Barrier(4)

    def tell(_value):
        running.wait(PATIENCE_S)  # its index is no result

    looping = [make_guest(host, tell=tell) for _ in range(3)]
    asking = make_guest(host, ask=inside)
    threads = [Thread(lambda guest=guest: guest.call("run")) for guest in looping]
    threads.append(Thread(lambda: asking.call("ask", [1])))
    assert inside.entered.wait(PATIENCE_S)
    threads.append(Thread(lambda: asking.call("ok")))
    running.wait(PATIENCE_S)
    host.close()
    for instance in (*looping, asking):
        wait_process_ends(instance.pid)
        assert not instance.alive
    assert threads[-2].running
    inside.leave.set()
    for thread in threads:
        expect(CallError, Cause.CLOSED, thread.result)
    for instance in (*looping, asking):
        gone(instance, CallError, Cause.CLOSED)


STARTING = GUEST.replace('(func (export "trap")', "(func $s (call $tell (i32.const 1)) {}) (start $s) (func")


@pytest.mark.parametrize("where", ["the start function", "a host function of it", "before it"])
def test_closing_the_supervisor_while_it_instantiates(make_supervisor, spawned, where):
    """InstantiationError, CLOSED, wherever instantiation is; and nothing is left."""
    host = make_supervisor()
    inside, running = Inside(), threading.Event()
    module = host.compile(STARTING.format("(loop $l (br $l))" if where == "the start function" else ""))
    if where == "before it":
        # A worker that is stopped before it could load the module.
        def instantiate():
            return host.instantiate(module, imports(tell=lambda _: running.set()))

        take = host._processes.take_worker

        def take_and_stop(*args, **options):
            taken = take(*args, **options)
            stop_process(spawned.pid_of(taken[0]))
            running.set()
            return taken

        host._processes.take_worker = take_and_stop
    elif where == "the start function":

        def instantiate():
            return host.instantiate(module, imports(tell=lambda _: running.set()))

    else:

        def instantiate():
            return host.instantiate(module, imports(tell=lambda value: running.set() or inside(value)))

    thread = Thread(instantiate)
    assert running.wait(PATIENCE_S)
    host.close()
    inside.leave.set()
    error = expect(InstantiationError, Cause.CLOSED, thread.result)
    assert str(error) == "WASM instantiation error: the supervisor is closed"
    expect(InstantiationError, Cause.CLOSED, lambda: host.instantiate(module, imports()))


def test_closing_the_supervisor_as_an_instance_is_ready(make_supervisor, monkeypatch):
    """Either an instance that is closed, or InstantiationError, CLOSED; never one that lives on."""
    from pdsandbox.supervisor.conversation import Conversation

    host = make_supervisor()
    module = host.compile(GUEST)
    await_loaded = Conversation.await_loaded

    def closing(self, watch):
        await_loaded(self, watch)
        monkeypatch.undo()
        Thread(host.close).result()

    monkeypatch.setattr(Conversation, "await_loaded", closing)
    expect(InstantiationError, Cause.CLOSED, lambda: host.instantiate(module, imports()))


def test_closing_the_supervisor_twice_and_from_many_threads(make_supervisor):
    """Every close returns, and only when everything has ended."""
    host = make_supervisor(spares=2)
    instances = [make_guest(host) for _ in range(4)]
    pids = [instance.pid for instance in instances]

    def close():
        host.close()
        for pid in pids:
            wait_process_ends(pid)
        assert not any(instance.alive for instance in instances)

    together(*[close] * 8)
    host.close()


def test_after_close(make_supervisor):
    """Each door says so in its own class; a supervisor that was never used as well."""
    host, unused = make_supervisor(), make_supervisor()
    module = host.compile(GUEST)
    instance = make_guest(host)
    host.close()
    unused.close()
    for closed in (host, unused):
        error = expect(CompileError, Cause.CLOSED, lambda closed=closed: closed.compile("(module)"))
        assert str(error) == "WASM compile error: the supervisor is closed"
    error = expect(InstantiationError, Cause.CLOSED, lambda: host.instantiate(module, WasmImports()))
    assert str(error) == "WASM instantiation error: the supervisor is closed"
    gone(instance, CallError, Cause.CLOSED)
    assert instance.fuel_consumed() >= 0
    assert module.exports()[0] == "memory"
    with pytest.raises(CompileError), host:
        host.compile(GUEST)


def test_closing_the_supervisor_from_a_host_function(make_supervisor):
    """The call that it belongs to ends with CLOSED once the host function returns; nobody waits for himself."""
    host = make_supervisor()
    instance = make_guest(host, ask=lambda value: host.close() or value)
    expect(CallError, Cause.CLOSED, lambda: instance.call("ask", [1]))
    gone(instance, CallError, Cause.CLOSED)


def test_closing_the_supervisor_from_a_start_function(make_supervisor):
    """InstantiationError, CLOSED."""
    host = make_supervisor()
    module = host.compile(STARTING.format(""))
    offered = imports(tell=lambda _value: host.close())
    expect(InstantiationError, Cause.CLOSED, lambda: host.instantiate(module, offered))


def test_a_housekeeper_that_fails_takes_its_workers_along(make_supervisor, monkeypatch):
    """Nobody would watch them any more: they end, who uses them is told at once, and the next use starts anew."""
    host = make_supervisor(spares=1)
    instance, housekeeper, told = make_guest(host), host._processes._housekeeper, []

    def fail(_now):
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda lost: told.append(lost.exc_type))
    monkeypatch.setattr(housekeeper, "_end_overdue", fail)
    housekeeper.wake()
    housekeeper._thread.join(PATIENCE_S)
    assert told == [MemoryError]
    gone(instance, WorkerCrashed, Cause.HOST)
    for _ in range(2):
        assert make_guest(host).call("ok") == [I32(42)]
    assert host.compile("(module)").exports() == []
