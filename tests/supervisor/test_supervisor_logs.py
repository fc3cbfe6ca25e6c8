"""Logs are pipelined: what is on its way when something ends, who waits for whom, and that nothing piles up."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest
from supervising import MIB, Thread, eventually, expect, gone, stop_process, wait_process_ends

from pdsandbox import (
    I32,
    CallError,
    Cause,
    EngineConfig,
    HostFunction,
    Limits,
    RssExceeded,
    Supervisor,
    WallClockExceeded,
    WasmImports,
    WorkerCrashed,
    in_worker,
)
from pdsandbox.platform import os_
from pdsandbox.protocol import messages as m

#: A deadline before which a guest must have got somewhere, on a busy machine, too.
WALL_S = 1.0
PIPE_BYTES = 65536
GUEST = f"""(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (import "h" "there" (func $there))
  (memory (export "memory") 1 4000)
  (func $say (param $n i32) (call $log (local.get $n) (i32.const 0) (i32.const 4)))
  (func $past (i32.store8 (i32.const 1000) (i32.const 1)))
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "long") (param {"i32 " * 100}) (result i32) (local.get 99))
  (func $logs (export "logs") (param $n i32) (local $i i32)
    (loop $l (if (i32.lt_u (local.get $i) (local.get $n)) (then
      (call $say (local.get $i)) (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)))))
  (func (export "logs for ever") (loop $l (call $say (i32.const 1)) (br $l)))
  (func (export "logs, then spins") (call $say (i32.const 1)) (call $past) (loop $l (br $l)))
  (func (export "logs, then there") (param i32) (call $logs (local.get 0)) (call $there))
  (func (export "logs, then fills") (call $say (i32.const 1)) (call $past)
    (loop $l
      (drop (memory.grow (i32.const 64)))
      (memory.fill (i32.const 65536) (i32.const 7) (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536)))
      (br $l))))"""


class Untold(Exception):
    pass


def nothing(_caller):
    """The function in the worker, where none is wanted."""


def leave(_caller):
    """It ends the process."""
    os._exit(7)


def flood(_caller):
    """It says over and over again that the guest logs, level 9, and hears nothing."""
    frame = sys._getframe()
    while "outbox" not in frame.f_locals:
        frame = frame.f_back
    fd = frame.f_locals["outbox"].fd
    log = sys.modules["pdsandbox.protocol.messages"].HostLog(0, (9).to_bytes(48, "little"), b"flood").frame()
    while True:
        os.write(fd, log)


def make_guest(host, log, there=nothing):
    functions = {("h", "there"): HostFunction(in_worker(there))}
    return host.instantiate(host.compile(GUEST), WasmImports(pd_log=log, functions=functions))


def raising(original, level=1):
    def log(given, _message):
        if given == level:
            raise original

    return log


class FailsBehind:
    """A log that raises once its guest has gone on and makes no more host calls: it cannot hear of it."""

    def __init__(self, original):
        self.original = original
        self.instance = None

    def attach(self, instance):
        """Know where the guest's memory is."""
        self.instance = instance
        instance.memory_read(0, 1)
        instance.call("ok")
        self.base, _ = instance._talk.memory.where
        assert self.base

    def __call__(self, _level, _message):
        data, here = os_.new_bytes(1)

        def past():
            os_.copy_process(self.instance.pid, here, self.base + 1000, 1)
            return data == b"\1"

        eventually(past)
        os_.copy_process(self.instance.pid, os_.address_of(b"\0"), self.base + 1000, 1, write=True)
        raise self.original


class StopsTheWorker:
    """A log that raises once its guest has returned, with the worker stopped."""

    original = Untold()
    instance = None

    def __call__(self, _level, _message):
        replies, frames = self.instance._handle.ends.replies, self.instance._talk.channel.frames
        # Unless it came in the read that brought the log.
        eventually(lambda: os_.unread_bytes(replies) + frames.buffered >= len(m.Result(0, b"").frame()))
        stop_process(self.instance.pid)
        raise self.original


def chained(error, original):
    """The verdict on the worker tells of the failure before it."""
    first = error.__cause__
    assert isinstance(first, CallError)
    assert first.cause is Cause.HOST_FUNCTION
    assert first.__cause__ is original


@pytest.fixture
def interruptible():
    """Makes supervisors whose guests can be interrupted."""
    made = []

    def make(**limits):
        made.append(
            Supervisor(
                limits=Limits(**{"fuel": None, "wall_s": 60.0} | limits),
                engine=EngineConfig(interruptible=True),
                spares=0,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_guest_runs_ahead_of_its_logs_by_a_pipe_and_no_further(make_supervisor):
    """While the first log is being taken, the guest goes on until the pipe is full, and waits there: nothing piles up
    on our side of it."""
    host = make_supervisor(host_calls=None)
    held = []

    def log(level, _message):
        if level:
            return
        worker = psutil.Process(instance.pid)
        replies = instance._handle.ends.replies
        # Full but for less than a frame, and the worker asleep in its write.
        waits = (psutil.STATUS_SLEEPING, psutil.STATUS_DISK_SLEEP)
        eventually(lambda: os_.unread_bytes(replies) > PIPE_BYTES - 8192 and worker.status() in waits)
        held.append((os_.unread_bytes(replies), instance._talk.channel.frames.buffered))

    instance = make_guest(host, log)
    instance.call("logs", [20_000])
    ((in_pipe, in_buffer),) = held
    assert in_pipe <= PIPE_BYTES
    assert in_buffer <= 16 << 10
    assert instance.call("ok") == [I32(42)]


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_a_guest_that_logs_for_ever_meets_its_deadline(make_supervisor, slow):
    """With no other limit, in time, and the supervisor has not grown."""
    host = make_supervisor(host_calls=None, host_call_bytes=None)
    taken = [0]

    def log(_level, message):
        taken[0] += 1
        if slow:
            sum(range(20_000))

    make_guest(host, log).call("logs", [1000])
    instance = make_guest(host, log)
    before = psutil.Process().memory_info().rss
    expect(WallClockExceeded, Cause.WALL, lambda: instance.call("logs for ever", wall_s=WALL_S))
    assert psutil.Process().memory_info().rss - before < 4 * MIB
    assert taken[0] > 1000
    gone(instance, WallClockExceeded, Cause.WALL)


def test_an_interruptible_guest_that_logs_for_ever(interruptible):
    """It is never silent, so nobody waits for it: its deadline holds all the same."""
    host = interruptible(host_calls=None, host_call_bytes=None)
    instance = make_guest(host, lambda _level, _message: None)
    expect(WallClockExceeded, Cause.WALL, lambda: instance.call("logs for ever", wall_s=WALL_S))


def test_a_failed_log_and_then_no_message_any_more(host):
    """The guest never hears of it: its deadline ends the worker, and that is told, with the log's failure chained."""
    original = Untold()
    log = FailsBehind(original)
    instance = make_guest(host, log)
    log.attach(instance)
    error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("logs, then spins", wall_s=WALL_S))
    chained(error, original)
    gone(instance, WallClockExceeded, Cause.WALL)


@pytest.mark.usefixtures("patience")
def test_a_failed_log_and_then_an_interrupt(interruptible):
    """A guest that can be interrupted survives, and then the log's failure is the first cause, as for any trap."""
    original = Untold()
    log = FailsBehind(original)
    instance = make_guest(interruptible(), log)
    log.attach(instance)
    for _ in range(3):
        error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("logs, then spins", wall_s=WALL_S))
        assert error.__cause__ is original
        assert instance.alive
        assert instance.call("ok") == [I32(42)]
        assert instance.memory_read(0, 4) == bytes(4)


def test_a_failed_log_and_then_too_much_memory(make_supervisor):
    """What the worker died of is told, with the log's failure chained."""
    original = Untold()
    host = make_supervisor(rss_bytes=64 * MIB, memory_bytes=256 * MIB)
    log = FailsBehind(original)
    instance = make_guest(host, log)
    log.attach(instance)
    chained(expect(RssExceeded, Cause.RSS, lambda: instance.call("logs, then fills")), original)
    gone(instance, RssExceeded, Cause.RSS)


@pytest.mark.parametrize("count", [1, 300])
def test_logs_of_a_worker_that_dies_right_afterwards(host, count):
    """All that it logged is delivered, though it is long gone when the first one is taken."""
    seen = []

    def log(level, _message):
        if not seen:
            wait_process_ends(pid)
        seen.append(level)

    instance = make_guest(host, log, there=leave)
    pid = instance.pid
    error = expect(WorkerCrashed, Cause.EXIT, lambda: instance.call("logs, then there", [count]))
    assert error.exit_code == 7
    assert seen == list(range(count))
    gone(instance, WorkerCrashed, Cause.EXIT)


@pytest.mark.parametrize("bad", [0, 299])
def test_a_log_of_a_dead_worker_that_fails(host, bad):
    """The death is told, with the log's failure chained; no later log is taken."""
    seen, original = [], Untold()

    def log(level, _message):
        if not seen:
            wait_process_ends(pid)
        seen.append(level)
        if level == bad:
            raise original

    instance = make_guest(host, log, there=leave)
    pid = instance.pid
    error = expect(WorkerCrashed, Cause.EXIT, lambda: instance.call("logs, then there", [300]))
    chained(error, original)
    assert seen == list(range(bad + 1))


@pytest.mark.parametrize("fails", [False, True], ids=["taken", "failing"])
@pytest.mark.parametrize("can", [False, True], ids=["plain", "interruptible"])
def test_a_worker_that_logs_on_and_hears_nothing(interruptible, make_supervisor, can, fails):
    """Native code in the worker floods the pipe and ignores that a log failed, without any limit on host calls: the
    deadline holds."""
    make = interruptible if can else make_supervisor
    host = make(host_calls=None, host_call_bytes=None)
    original = Untold()
    instance = make_guest(host, raising(original, 9) if fails else lambda _level, _message: None, there=flood)
    error = expect(WallClockExceeded, Cause.WALL, lambda: instance.call("logs, then there", [1], wall_s=WALL_S))
    if fails:
        chained(error, original)
    gone(instance, WallClockExceeded, Cause.WALL)


def test_a_flood_meets_the_limit_on_host_calls(make_supervisor):
    """A worker that logs more than its guest may breaks the protocol, also after a log failed."""
    for fails in (False, True):
        host = make_supervisor(host_calls=1000)
        log = raising(Untold(), 9) if fails else lambda _level, _message: None
        instance = make_guest(host, log, there=flood)
        expect(WorkerCrashed, Cause.PROTOCOL, lambda instance=instance: instance.call("logs, then there", [1]))


def test_an_interrupt_in_a_log_ends_the_worker(host):
    """As in any host function: it propagates as it is, and the instance is gone, cause CANCELLED."""
    original = KeyboardInterrupt()
    instance = make_guest(host, raising(original))
    with pytest.raises(KeyboardInterrupt) as caught:
        instance.call("logs for ever")
    assert caught.value is original
    gone(instance, WorkerCrashed, Cause.CANCELLED)


def test_the_failure_reaches_a_guest_that_is_busy_elsewhere(host):
    """A guest in a long function of the worker's hears of it at its next message, or is done by then."""
    original = Untold()
    instance = make_guest(host, raising(original))
    for _ in range(50):
        error = expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("logs, then there", [5]))
        assert error.__cause__ is original
        assert instance.call("ok") == [I32(42)]
    assert instance.alive


REQUESTS = {
    "a first call": lambda instance: instance.call("add", [40, 2]) == [I32(42)],
    "a warm call": lambda instance: instance.call("ok") == [I32(42)],
    "func": lambda instance: instance.func("ok")() == 42,
    "a long call": lambda instance: instance.call("long", list(range(100))) == [I32(99)],
    "a batch": lambda instance: instance.call_many("ok", [[]] * 3) == [[I32(42)]] * 3,
    "logs": lambda instance: instance.call("logs", [0]) == [],
    "memory_read": lambda instance: instance.memory_read(0, 4) == bytes(4),
    "memory_write": lambda instance: instance.memory_write(0, bytes(4)) is None,
}


@pytest.mark.usefixtures("piped")
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_the_news_of_a_failure_and_the_next_request_come_in_one_read(host, request_):
    """A worker that is stopped as soon as it has answered finds both at once, whatever the request is, and answers."""
    log = StopsTheWorker()
    instance = log.instance = make_guest(host, log)
    ends = instance._handle.ends
    for _ in range(3):
        assert expect(CallError, Cause.HOST_FUNCTION, lambda: instance.call("logs", [1])).__cause__ is log.original

        def go_on():
            eventually(lambda: os_.unread_bytes(ends.requests_read) > len(m.HostFail().frame()))
            os.kill(instance.pid, signal.SIGCONT)

        going_on = Thread(go_on)
        assert request_(instance)
        going_on.result()
