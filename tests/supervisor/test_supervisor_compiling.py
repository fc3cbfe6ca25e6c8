"""Many compilations at once: equal ones compile once, others go on side by side, at most `max_compilers`."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from supervising import PATIENCE_S, Thread, eventually, expect, stop_process, together

from pdsandbox import I32, Cause, CompileError
from pdsandbox.supervisor import compiling
from pdsandbox.supervisor.cache import CompileCache

INVALID = "(module (func (result i32)))"


def source(number):
    return f'(module (func (export "n") (result i32) (i32.const {number})))'


class Gate:
    """Holds each compilation before it begins until `opened`; counts who runs and who asked the cache."""

    def __init__(self, monkeypatch):
        self.opened = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = self.begun = self.asked = 0
        self.fail_first_with = None
        run, get = compiling.run, CompileCache.get

        def gated_run(handle, *args, **options):
            with self.lock:
                self.begun += 1
                self.running += 1
                self.most = max(self.most, self.running)
                first = self.begun == 1
            try:
                assert self.opened.wait(PATIENCE_S)
                if first and self.fail_first_with is not None:
                    handle.condemn(CompileError("left"))
                    handle.release()
                    raise self.fail_first_with
                return run(handle, *args, **options)
            finally:
                with self.lock:
                    self.running -= 1

        def counted_get(cache, key, compile_):
            with self.lock:
                self.asked += 1
            return get(cache, key, compile_)

        monkeypatch.setattr(compiling, "run", gated_run)
        monkeypatch.setattr(CompileCache, "get", counted_get)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


def test_sixteen_threads_compile_an_equal_module_once(host, gate, spawned):
    """One compiler for all of them, one compilation shared by all."""
    threads = [Thread(lambda: host.compile(source(200))) for _ in range(16)]
    eventually(lambda: gate.asked == 16 and gate.begun == 1)
    gate.opened.set()
    modules = [thread.result() for thread in threads]
    assert len({id(module.compiled) for module in modules}) == 1
    assert len(spawned.compilers) == gate.begun == 1


def test_sixteen_threads_at_one_barrier(host, spawned):
    """The same without a gate: however they meet, one compiler."""
    modules = together(*[lambda: host.compile(source(201))] * 16)
    assert len({id(module.compiled) for module in modules}) == 1
    assert len(spawned.compilers) == 1


class _Left(BaseException):
    """Raised from outside, such as by a signal handler."""


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, _Left])
def test_a_cancelled_leader_hands_over(make_supervisor, gate, spawned, interrupt):
    """It leaves with its own exception; one of those that waited compiles for all the others."""
    host = make_supervisor()
    gate.fail_first_with = interrupt()
    leader = Thread(lambda: host.compile(source(202)))
    eventually(lambda: gate.begun == 1)
    followers = [Thread(lambda: host.compile(source(202))) for _ in range(7)]
    eventually(lambda: gate.asked == 8)
    gate.opened.set()
    with pytest.raises(interrupt):
        leader.result()
    modules = [follower.result() for follower in followers]
    assert len({id(module.compiled) for module in modules}) == 1
    assert len(spawned.compilers) == 2
    assert host.instantiate(modules[0]).call("n") == [I32(202)]


def test_a_failing_compilation_fails_for_everybody(host, gate, spawned):
    """Each gets an equal error of its own; the next one to ask compiles anew."""
    threads = [Thread(lambda: host.compile(INVALID)) for _ in range(8)]
    eventually(lambda: gate.asked == 8)
    gate.opened.set()
    errors = [expect(CompileError, Cause.COMPILE, thread.result) for thread in threads]
    assert len(set(errors)) == 1
    assert len({id(error) for error in errors}) == 8
    assert len(spawned.compilers) == 1
    expect(CompileError, Cause.COMPILE, lambda: host.compile(INVALID))
    assert len(spawned.compilers) == 2


def test_other_compilations_go_on_while_one_is_slow(make_supervisor, spawned):
    """A compiler that does not answer keeps nobody from compiling, nor an equal request from waiting for it."""
    host = make_supervisor(max_compilers=2, compile_wall_s=None)
    host.compile("(module)")
    hung, follower = hang_a_compiler(host, spawned)
    for number in range(210, 215):
        assert host.instantiate(host.compile(source(number))).call("n") == [I32(number)]
    assert hung.running
    assert follower.running
    os.kill(spawned.compilers[1].pid, signal.SIGCONT)
    assert hung.result().compiled is follower.result().compiled


def hang_a_compiler(host, spawned):
    """Two threads that wait for one compilation whose process is stopped before it has done anything."""
    already = len(spawned.compilers)
    stopped = threading.Event()
    converse = compiling._converse

    def stopping(handle, *args, **options):
        compiling._converse = converse
        stop_process(spawned.pid_of(handle))
        stopped.set()
        return converse(handle, *args, **options)

    compiling._converse = stopping
    threads = [Thread(lambda: host.compile(source(203))) for _ in range(2)]
    assert stopped.wait(PATIENCE_S)
    assert len(spawned.compilers) == already + 1
    return threads


@pytest.mark.parametrize("most", [1, 3])
def test_max_compilers(make_supervisor, gate, spawned, most):
    """Never more than so many compilers live at once; all that waited get their turn."""
    host = make_supervisor(max_compilers=most)
    threads = [Thread(lambda n=n: host.compile(source(n))) for n in range(220, 230)]
    eventually(lambda: gate.asked == 10 and gate.begun == most)
    assert len(spawned.compilers) == most
    gate.opened.set()
    modules = [thread.result() for thread in threads]
    assert len({module.sha256 for module in modules}) == 10
    assert gate.most == most
    assert len(spawned.compilers) == 10


def test_max_compilers_is_freed_by_failures(make_supervisor, spawned):
    """A compilation that fails, or whose process dies, or is cancelled, gives its place back."""
    host = make_supervisor(max_compilers=1)
    run = compiling.run

    def dying(handle, *args, **options):
        os.kill(spawned.pid_of(handle), signal.SIGKILL)
        return run(handle, *args, **options)

    def cancelled(handle, *args, **options):
        handle.condemn(CompileError("left"))
        handle.release()
        raise KeyboardInterrupt

    expect(CompileError, Cause.COMPILE, lambda: host.compile(INVALID))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "run", dying)
        expect(CompileError, Cause.SIGNAL, lambda: host.compile(source(230)))
        patch.setattr(compiling, "run", cancelled)
        with pytest.raises(KeyboardInterrupt):
            host.compile(source(230))
    assert host.instantiate(host.compile(source(230))).call("n") == [I32(230)]


def test_close_ends_compilations_and_those_that_wait(make_supervisor, spawned):
    """The one that runs, the equal one that waits for it and the one that waits for its place: CLOSED, all alike."""
    host = make_supervisor(max_compilers=1, compile_wall_s=None)
    running, equal = hang_a_compiler(host, spawned)
    waiting = [Thread(lambda n=n: host.compile(source(n))) for n in (240, 241)]
    eventually(lambda: len(host._cache._flights) == 3)
    host.close()
    for thread in (running, equal, *waiting):
        error = expect(CompileError, Cause.CLOSED, thread.result)
        assert str(error) == "WASM compile error: the supervisor is closed"
    assert len(spawned.compilers) == 1


def test_a_compilation_that_ends_as_the_supervisor_closes(make_supervisor, monkeypatch):
    """Its artifact is not left open: either a module of a closed supervisor, or CLOSED."""
    host = make_supervisor()
    run = compiling.run

    def closing(*args, **options):
        compiled = run(*args, **options)
        host.close()
        return compiled

    monkeypatch.setattr(compiling, "run", closing)
    expect(CompileError, Cause.CLOSED, lambda: host.compile(source(250)))
