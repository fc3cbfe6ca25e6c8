"""What becomes of a guest's streams when its worker comes to an end, and that deadlines hold wherever it waits."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import threading
import weakref

import pytest
from commands import GROWS, SLEEPS, THRICE, TOLD, WRITE, command
from leaks import wait_until
from probe import SOURCE
from test_wasi_poll import S, clock, read, write

from pdsandbox import (
    CallError,
    Cause,
    Dir,
    EngineConfig,
    HostFunction,
    InstantiationError,
    Limits,
    Output,
    Supervisor,
    WallClockExceeded,
    Wasi,
    WasmError,
    WasmImports,
    WorkerCrashed,
)
from pdsandbox.runtime.wasi import abi

#: A deadline before which a guest must have got somewhere, on a busy machine, too.
SOON_S = 1.0


@pytest.fixture
def empty():
    """(read end, write end) of a pipe with nothing in it."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def full():
    """(read end, write end) of a pipe that takes no byte more."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(ends[1], bytes(4096))
    os.set_blocking(ends[1], True)
    yield ends
    for fd in ends:
        os.close(fd)


def subscribe(instance, *subscriptions):
    """Puts them where poll_oneoff looks for them."""
    instance.memory_write(0x400, b"".join(abi.subscription.pack(*each) for each in subscriptions))
    return [0x400, 0x4000, len(subscriptions), 0x100]


# --- deadlines ---


@pytest.mark.parametrize("what", ["sleep", "poll", "poll for writing", "sleep and poll", "read", "write"])
def test_a_deadline_holds_wherever_the_guest_waits(begin, empty, full, what):
    """For the clock, for a descriptor on either side of it, or for both."""
    instance = begin(SOURCE, stdin=empty[0], stdout=full[1])
    instance.memory_write(0x200, struct.pack("<II", 0x8000, 10))
    hour = clock(1, 3600 * S)
    name, args = {
        "sleep": ("poll_oneoff", subscribe(instance, hour)),
        "poll": ("poll_oneoff", subscribe(instance, read(1, 0))),
        "poll for writing": ("poll_oneoff", subscribe(instance, write(1, 1))),
        "sleep and poll": ("poll_oneoff", subscribe(instance, hour, read(2, 0), write(3, 1))),
        "read": ("fd_read", [0, 0x200, 1, 0x100]),
        "write": ("fd_write", [1, 0x200, 1, 0x100]),
    }[what]
    with pytest.raises(WallClockExceeded) as caught:
        instance.call(name, args, wall_s=0.2)
    assert (caught.value.cause, caught.value.limit) == (Cause.WALL, 0.2)
    assert not instance.alive


def test_a_deadline_that_is_not_reached_disturbs_nothing(begin, empty):
    """What comes in time is read, and a sleep that is shorter than the rest ends by itself."""
    instance = begin(SOURCE, stdin=empty[0])
    assert instance.func("poll_oneoff")(*subscribe(instance, clock(1, 10**6), read(2, 0))) == 0
    os.write(empty[1], b"x")
    instance.memory_write(0x200, struct.pack("<II", 0x8000, 10))
    assert instance.func("fd_read")(0, 0x200, 1, 0x100) == 0
    assert instance.memory_read(0x8000, 1) == b"x"


def test_an_interruptible_guest_that_reads_at_its_deadline(begin, empty):
    """It runs no code of its own then that could be interrupted, so its worker is killed."""
    with Supervisor(spares=0, engine=EngineConfig(interruptible=True)) as host:
        instance = begin(SOURCE, on=host, stdin=empty[0])
        instance.memory_write(0x200, struct.pack("<II", 0x8000, 10))
        with pytest.raises(WallClockExceeded):
            instance.call("fd_read", [0, 0x200, 1, 0x100], wall_s=0.2)


@pytest.mark.parametrize("which", ["stdin", "stdout"])
def test_the_user_s_own_code_at_the_deadline(begin, which):
    """Nobody can end that: the worker is killed at the deadline, and the call told so when the code returns."""
    began = []

    class Slow:
        def read(self, _most):
            began.append(1)
            assert wait_until(lambda: not instance.alive)
            return b"late"

        def write(self, _data):
            self.read(0)

    instance = begin(SOURCE, **{which: Slow()})
    instance.memory_write(0x200, struct.pack("<II", 0x8000, 10))
    name, fd = ("fd_read", 0) if which == "stdin" else ("fd_write", 1)
    with pytest.raises(WallClockExceeded):
        instance.call(name, [fd, 0x200, 1, 0x100], wall_s=SOON_S)
    assert began == [1]


def test_a_run_has_a_deadline(begin):
    """The limit of the host, or its own; and its output so far comes with it."""
    instance = begin(command("(call $hi) (loop $l (br $l))"))
    with pytest.raises(WallClockExceeded) as caught:
        instance.run(wall_s=SOON_S)
    assert caught.value.output == Output(b"hi\n", b"", truncated=True)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again, again.output) == (caught.value, caught.value.output)


# --- what was written before the end ---


@pytest.mark.parametrize(
    ("how", "body", "cause", "least"),
    [
        ("deadline", SLEEPS, Cause.WALL, 3),
        ("rss", GROWS, Cause.RSS, 3),
        ("trap", "unreachable", Cause.GUEST_TRAP, 3),
        ("kill", SLEEPS, Cause.CANCELLED, 2),
        ("close", SLEEPS, Cause.CLOSED, 2),
        ("SIGKILL", SLEEPS, Cause.SIGNAL, 2),
    ],
)
def test_what_was_written_before_the_end_is_delivered(begin, how, body, cause, least):
    """Whatever ended the guest in its run; and it is marked where more may have been to come."""
    told = threading.Event()
    imports = WasmImports(functions={("m", "told"): HostFunction(lambda _caller: told.set())})
    with Supervisor(spares=0, limits=Limits(wall_s=60, rss_bytes=64 << 20, memory_bytes=None)) as host:
        instance = begin(command(THRICE + body, TOLD), imports, on=host)
        pid = instance.pid
        ends = {"kill": instance.kill, "close": instance.close, "SIGKILL": lambda: os.kill(pid, signal.SIGKILL)}
        thread = threading.Thread(target=lambda: (told.wait(), ends.get(how, int)()))
        thread.start()
        with pytest.raises(WasmError) as caught:
            instance.run(wall_s=SOON_S if how == "deadline" else 60)
        thread.join()
        assert caught.value.cause is cause
        written = caught.value.output
        assert written.truncated is (how != "trap")
        assert written.stdout in [b"hi\n" * times for times in range(least, 4)]
        assert instance.output() == Output()


def test_what_a_call_wrote_before_its_end_can_be_asked_for(begin):
    """`output` works on an instance that has gone, once."""
    instance = begin(command("(call $hi) (loop $l (br $l))"))
    with pytest.raises(WallClockExceeded) as caught:
        instance.call("run", wall_s=SOON_S)
    assert caught.value.output is None
    assert instance.output() == Output(b"hi\n", b"", truncated=True)
    assert instance.output() == Output()


def test_what_was_written_is_there_after_close(begin):
    """And nothing is missing: nothing ran."""
    instance = begin(command(""))
    instance.call("hi")
    instance.close()
    assert instance.output() == Output(b"hi\n")


def test_an_endless_writer_meets_its_cap(begin):
    """Not memory, neither here nor there; and the deadline."""
    instance = begin(command("(loop $l (call $hi) (br $l))"), stdout_bytes=1000)
    with pytest.raises(WallClockExceeded) as caught:
        instance.run(wall_s=SOON_S)
    assert caught.value.output == Output((b"hi\n" * 334)[:1000], b"", truncated=True)


def test_a_cap_begins_anew_when_its_output_was_taken(begin):
    """The worker is told, so that it sends again."""
    instance = begin(command(""), stdout_bytes=7)
    for _ in range(3):
        for _ in range(3):
            instance.call("hi")
        assert instance.output() == Output(b"hi\nhi\nh", b"", truncated=True)
    for _ in range(2):
        instance.call("hi")
    assert instance.output() == Output(b"hi\nhi\n")


def test_a_guest_that_dies_while_instantiating_leaves_its_output(begin):
    """Killed in its start function."""
    source = f"(module {WRITE.format(more='')} (start $run) (func $run (call $hi) (loop $l (br $l))))"
    with (
        Supervisor(spares=0, limits=Limits(wall_s=SOON_S, fuel=None)) as host,
        pytest.raises(WallClockExceeded) as caught,
    ):
        begin(source, on=host)
    assert caught.value.output == Output(b"hi\n", b"", truncated=True)


def test_a_guest_that_is_killed_while_it_writes(begin):
    """All that came is there, in order, also the part of a write that was cut short: a pipe holds less than one."""
    told = threading.Event()
    imports = WasmImports(functions={("m", "told"): HostFunction(lambda _caller: told.set())})
    source = f"""(module {TOLD}
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 8) (data (i32.const 0) "\\00\\00\\01\\00\\00\\00\\06\\00")
      (func (export "_start")
        (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (call $told) (br $l))))"""
    instance = begin(source, imports, stdout_bytes=1 << 28)
    piece = bytes(range(251)) * (0x60000 // 251 + 1)
    instance.memory_write(0x10000, piece[:0x60000])
    thread = threading.Thread(target=lambda: (told.wait(), instance.kill()))
    thread.start()
    with pytest.raises(WorkerCrashed) as caught:
        instance.run()
    thread.join()
    written = caught.value.output
    assert (caught.value.cause, written.truncated) == (Cause.CANCELLED, True)
    assert len(written.stdout) >= 0x60000
    rounds = len(written.stdout) // 0x60000 + 1
    assert written.stdout == (piece[:0x60000] * rounds)[: len(written.stdout)]


# --- a log that fails ---


@pytest.mark.parametrize("cap", [3, 1 << 20])
def test_a_log_that_fails_ends_a_guest_that_only_writes(begin, cap):
    """It finds out with its next write, whether that is still captured or not; what it wrote after that is dropped."""

    def fail(_level, _message):
        raise ValueError

    body = "(call $hi) (call $log (i32.const 1) (i32.const 16) (i32.const 2)) (loop $l (call $hi) (br $l))"
    source = command(body, '(import "env" "pd_log" (func $log (param i32 i32 i32)))')
    instance = begin(source, WasmImports(pd_log=fail), stdout_bytes=cap)
    with pytest.raises(CallError, match="raised ValueError") as caught:
        instance.run()
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.output == Output(b"hi\n")
    assert instance.alive
    instance.call("hi")
    assert instance.output().stdout == b"hi\n"


# --- random numbers ---


@pytest.mark.parametrize("spares", [0, 3])
def test_two_workers_draw_different_numbers(begin, spares):
    """Also those that were forked from one fork server before anybody asked for them."""
    with Supervisor(spares=spares) as host:
        made = [begin(SOURCE, on=host) for _ in range(4)]
        drawn = []
        for instance in made:
            assert instance.func("random_get")(0x8000, 32) == 0
            drawn.append(instance.memory_read(0x8000, 32))
    assert len(set(drawn)) == 4
    assert len({instance.pid for instance in made}) == 4


# --- what is left ---


@pytest.mark.parametrize(
    "source", ["(module (func $f unreachable) (start $f))", command("", '(import "m" "missing" (func))')]
)
def test_a_guest_that_cannot_be_made_leaves_nothing_open(workers, tmp_path, source):
    """Neither its directories, nor its worker: the fixture around each test counts."""
    wasi = Wasi(dirs=[Dir(tmp_path, "/a"), Dir(tmp_path, "b", "rw")])
    with pytest.raises(InstantiationError) as caught:
        workers.instantiate(workers.compile(source), wasi=wasi)
    assert caught.value.output == Output()


def test_an_instance_that_is_dropped_gives_back_what_its_streams_lead_to(workers):
    """Without being closed."""
    sink = []

    class Sink:
        def write(self, data):
            sink.append(data)

    given = Sink()
    seen = weakref.ref(given)
    instance = workers.instantiate(workers.compile(command("(call $hi)")), wasi=Wasi(stdout=given))
    instance.run()
    del given, instance
    gc.collect()
    assert seen() is None
    assert sink == [b"hi\n"]
