"""Guest memory copied by the kernel: when that is done, when not, and what a worker that dies or lies comes to."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import threading
import time

import lying
import pytest
from copying import WHERE, log_copies, refuse_copies
from supervising import (
    MIB,
    PAGE,
    PATIENCE_S,
    Thread,
    expect,
    gone,
    make_guest,
    stop_process,
    together,
)

from pdsandbox import (
    I32,
    CallError,
    Cause,
    EngineConfig,
    HostFunction,
    Limits,
    MemoryAccessError,
    RssExceeded,
    Supervisor,
    WallClockExceeded,
    WasmError,
    WasmImports,
    WorkerCrashed,
    in_worker,
)
from pdsandbox.platform import os_
from pdsandbox.supervisor.memory import PIECE_BYTES

GUEST = """(module
  (import "env" "host" (func $host))
  (memory (export "{name}") {pages})
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "host") (call $host))
  (func (export "grow_and_loop") (drop (memory.grow (i32.const 1))) (loop $l (br $l))))"""
#: Every operation on memory, over the same range.
USES = {
    "memory_read": lambda memory, size: memory.memory_read(0, size),
    "memory_read_into": lambda memory, size: memory.memory_read_into(0, bytearray(size)),
    "memory_write": lambda memory, size: memory.memory_write(0, bytes(size)),
}
EACH_USE = pytest.mark.parametrize("use", USES.values(), ids=USES)
BIG = 2 * PIECE_BYTES + 1


@pytest.fixture
def make(host):
    """make(function, name=, pages=): an instance of GUEST with this host function, closed after the test."""
    made = []

    def make(function=lambda caller: None, *, name="memory", pages=1 + BIG // PAGE):
        imports = WasmImports(functions={("env", "host"): HostFunction(function)})
        made.append(host.instantiate(host.compile(GUEST.format(name=name, pages=pages)), imports))
        return made[-1]

    yield make
    for instance in made:
        instance.close()


# --- when the kernel copies ---


@EACH_USE
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, BIG])
def test_one_copy_for_each_piece(make, monkeypatch, use, size):
    """Where memory is called "memory" from the start, and a zero length takes no copy at all."""
    instance, copies = make(), log_copies(monkeypatch)
    use(instance, size)
    assert sum(copies) == size
    assert len(copies) == -(-size // PIECE_BYTES)


def test_it_is_found_by_any_name(make, monkeypatch):
    """By the worker, when it is asked for the first time; the next call tells where it is."""
    instance, copies = make(name="m"), log_copies(monkeypatch)
    instance.memory_write(0, b"piped")
    assert copies == []
    instance.call("ok")
    assert instance.memory_read(0, 5) == b"piped"
    assert copies == [5]


@pytest.mark.parametrize("how", ["call", "call_many"])
def test_in_host_functions(make, monkeypatch, how):
    """From the second call on that has to do with memory, in batches as well."""

    def call(instance):
        instance.call("host") if how == "call" else instance.call_many("host", [[], []])

    instance, copies = make(lambda caller: caller.memory_write(0, caller.memory_read(1, 7))), log_copies(monkeypatch)
    call(instance)
    copies.clear()
    call(instance)
    assert set(copies) == {7}


@EACH_USE
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS], ids=errno.errorcode.get)
def test_where_the_kernel_refuses(make, monkeypatch, use, number):
    """The pipes take over, and nobody is told."""
    told = []
    instance = make(lambda caller: told.append(caller.memory_read(0, 3)) or caller.memory_write(3, b"!"))
    instance.memory_write(0, b"abc")
    refuse_copies(monkeypatch, number)
    use(instance, BIG)
    instance.memory_write(0, b"xyz")
    instance.call("host")
    assert told == [b"xyz"]
    assert instance.memory_read(0, 5) == b"xyz!\0"
    expect(MemoryAccessError, Cause.MEMORY, lambda: use(instance, 2 * BIG))
    assert instance.alive


@pytest.mark.usefixtures("patience")
def test_a_guest_that_was_interrupted_while_it_grew():
    """What it had grown before its deadline is there afterwards."""
    with Supervisor(engine=EngineConfig(interruptible=True), limits=Limits(fuel=None), spares=0) as host:
        instance = host.instantiate(
            host.compile(GUEST.format(name="memory", pages=1)),
            WasmImports(functions={("env", "host"): HostFunction(lambda caller: None)}),
        )
        instance.memory_write(0, b"x")
        expect(WallClockExceeded, Cause.WALL, lambda: instance.call("grow_and_loop", wall_s=0.2))
        instance.memory_write(2 * PAGE - 1, b"y")
        assert instance.memory_read(2 * PAGE - 1, 1) == b"y"
        expect(MemoryAccessError, Cause.MEMORY, lambda: instance.memory_read(2 * PAGE, 1))


# --- workers that die ---


def await_end(pid):
    """Until the process has ended; whether the supervisor has heard of it is another matter."""
    worker = os.pidfd_open(pid)
    try:
        assert select.select([worker], [], [], PATIENCE_S)[0]
    finally:
        os.close(worker)


@EACH_USE
@pytest.mark.parametrize("heard", [False, True], ids=["not yet reported", "reported"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_was_killed(make, use, number, heard):
    """The verdict is the signal that ended it."""
    instance = make()
    stop_process(instance.pid)  # it may do nothing more, not even end by itself
    os.kill(instance.pid, number)
    os.kill(instance.pid, signal.SIGCONT)
    await_end(instance.pid)
    if heard:
        assert instance._handle.wait_ended(PATIENCE_S)
    error = expect(WorkerCrashed, Cause.SIGNAL, lambda: use(instance, BIG))
    assert error.signal == number
    gone(instance, WorkerCrashed, Cause.SIGNAL)


@EACH_USE
@pytest.mark.parametrize("seen", ["ESRCH", "EFAULT", "short"])
def test_a_worker_that_is_killed_meanwhile(make, monkeypatch, use, seen):
    """The same while the kernel copies, whatever it makes of a memory that goes away."""
    instance = make()

    def copy(pid, _local, _remote, size, *, write=False):
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
        if seen == "short":
            return size - 1
        raise OSError(getattr(errno, seen), "gone")

    monkeypatch.setattr(WHERE, copy)
    error = expect(WorkerCrashed, Cause.SIGNAL, lambda: use(instance, BIG))
    assert error.signal == signal.SIGKILL


@EACH_USE
def test_one_that_the_user_ended(make, use):
    """kill and close are told as they are."""
    killed, closed = make(), make()
    killed.kill()
    closed.close()
    expect(WorkerCrashed, Cause.CANCELLED, lambda: use(killed, 1))
    expect(CallError, Cause.CLOSED, lambda: use(closed, 1))


@pytest.mark.parametrize("end", ["kill", "SIGKILL", "exit", "RSS"])
def test_a_pid_is_not_touched_after_its_end(make_supervisor, make, monkeypatch, end):
    """It may be another's: whoever asks for a copy then hears that there is no such process, and the kernel nothing."""
    host = make_supervisor(rss_bytes=64 * MIB, memory_bytes=128 * MIB, hardening="off")
    shipped = WasmImports(functions={("env", "host"): HostFunction(in_worker(lying.leave))})
    instance = host.instantiate(host.compile(GUEST.format(name="memory", pages=1600)), shipped)
    if end == "kill":
        instance.kill()
    elif end == "SIGKILL":
        os.kill(instance.pid, signal.SIGKILL)
    elif end == "exit":
        expect(WorkerCrashed, Cause.EXIT, lambda: instance.call("host"))
    else:
        expect(RssExceeded, Cause.RSS, lambda: instance.memory_write(0, bytes(100 * MIB)))
    handle = instance._handle
    assert handle.wait_ended(PATIENCE_S)
    copies = log_copies(monkeypatch)
    for write in (False, True):
        with pytest.raises(ProcessLookupError):
            handle.copy_memory(*reversed(os_.new_bytes(1)), 1, write=write)
    assert copies == []


# --- a memory that is not there ---


@EACH_USE
@pytest.mark.parametrize("seen", ["EFAULT", "ENOMEM", "short", "nothing"])
@pytest.mark.parametrize("inside", [False, True], ids=["between calls", "in a host function"])
def test_a_memory_that_is_not_there(make, monkeypatch, use, seen, inside):
    """What can only be a lie breaks the protocol, for good."""

    def host(caller):
        USES["memory_write" if use is USES["memory_write"] else "memory_read"](caller, PAGE)

    instance, neighbour = make(host), make()
    instance.memory_read(0, 1)

    def copy(_pid, _local, _remote, size, *, write=False):
        if seen in ("short", "nothing"):
            return size - 1 if seen == "short" else 0
        raise OSError(getattr(errno, seen), "a bad address")

    with monkeypatch.context() as patched:
        patched.setattr(WHERE, copy)
        error = expect(WorkerCrashed, Cause.PROTOCOL, lambda: instance.call("host") if inside else use(instance, PAGE))
    assert str(error).startswith("WASM trap: worker crashed: protocol violation: its memory ")
    gone(instance, WorkerCrashed, Cause.PROTOCOL)
    assert instance._handle.wait_ended(PATIENCE_S)
    assert neighbour.call("ok") == [I32(42)]


# --- threads ---

SHARE = 4096


@pytest.mark.hammer
def test_eight_threads_in_one_memory(host):
    """They take turns: each finds in its part what it wrote there, whole."""
    instance = make_guest(host)
    until = time.monotonic() + 2.0

    def use(number):
        rng, at, buffer, rounds = random.Random(number), number * SHARE, bytearray(SHARE), 0
        while time.monotonic() < until:
            data = rng.randbytes(SHARE)
            instance.memory_write(at, data)
            if rng.random() < 0.2:
                assert instance.call("add", [number, rounds]) == [I32(number + rounds)]
            assert instance.memory_read(at, SHARE) == data
            assert instance.memory_read_into(at, buffer) == SHARE
            assert buffer == data
            expect(MemoryAccessError, Cause.MEMORY, lambda: instance.memory_read(PAGE - 1, 2))
            rounds += 1
        return rounds

    assert all(together(*[lambda number=number: use(number) for number in range(8)]))


@pytest.mark.hammer
def test_reading_while_others_are_ended(make_supervisor):
    """A copy gives what was written, or the error of the one that was ended; nobody reads another's memory."""
    host = make_supervisor(wall_s=30.0)
    module = host.compile(GUEST.format(name="memory", pages=16))
    imports = WasmImports(functions={("env", "host"): HostFunction(lambda caller: None)})
    instances, stop, ended = [None] * 6, threading.Event(), [0]
    ends = {
        "kill": (WorkerCrashed, Cause.CANCELLED),
        "close": (CallError, Cause.CLOSED),
        "SIGKILL": (WorkerCrashed, Cause.SIGNAL),
    }
    expected = set(ends.values())

    def renew(at):
        instance = host.instantiate(module, imports)
        instance.memory_write(0, bytes([at]) * MIB)
        instances[at] = instance

    def end_them():
        rng = random.Random(3)
        while not stop.is_set():
            at = rng.randrange(len(instances))
            how = rng.choice(list(ends))
            if how == "SIGKILL":
                os.kill(instances[at].pid, signal.SIGKILL)
            else:
                getattr(instances[at], how)()
            renew(at)
            ended[0] += 1

    def use(seed):
        rng, good, bad = random.Random(seed), 0, 0
        begun = time.monotonic()
        while (took := time.monotonic() - begun) < 4.0 or (took < PATIENCE_S and not (good and ended[0] > 10)):
            at = rng.randrange(len(instances))
            instance = instances[at]
            try:
                if rng.random() < 0.5:
                    instance.memory_write(rng.randrange(1000), bytes([at]) * (MIB - 1000))
                assert set(instance.memory_read(0, MIB)) == {at}
                good += 1
            except WasmError as exc:
                if (type(exc), exc.cause) not in expected:
                    raise
                bad += 1
        return good, bad

    for at in range(len(instances)):
        renew(at)
    ender = Thread(end_them)
    try:
        counts = together(*[lambda seed=seed: use(seed) for seed in range(6)])
    finally:
        stop.set()
        ender.result()
    assert all(good for good, _ in counts)
    assert ended[0] > 10
