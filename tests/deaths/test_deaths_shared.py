"""A worker with several instances dies, in whatever way and whatever one of them does: each is told the first cause."""

from __future__ import annotations

import os
import select
import signal
import threading

import pytest
from leaks import wait_until

from pdsandbox import (
    Cause,
    HostFunction,
    Limits,
    RssExceeded,
    Supervisor,
    Trap,
    WallClockExceeded,
    WasmImports,
    WorkerCrashed,
)

pytestmark = pytest.mark.deaths

MIB = 1 << 20
RSS = 96 * MIB
PATIENT_S = 60.0
HASTY_S = 0.5
# What `ask` answers decides what the guest does next.
GO_ON, SPIN, FILL = range(3)
GUEST = """(module (import "m" "ask" (func $ask (result i32)))
  (memory (export "memory") 1)
  (func $do (local $what i32)
    (local.set $what (call $ask))
    (if (i32.eq (local.get $what) (i32.const 1)) (then (loop $l (br $l))))
    (if (i32.eq (local.get $what) (i32.const 2)) (then
      (drop (memory.grow (i32.const 4000)))
      (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536))))))
  (start $do)
  (func (export "do") (result i32) (call $do) (i32.const 42))
  (func (export "ok") (result i32) (i32.const {number})))"""

MOMENTS = ("in a call", "in a batch", "being added", "idle")
#: What is done to the worker from outside, by a host function or while nothing runs; and what its guest does.
STRIKES = ("SIGKILL", "SIGSEGV", "garbage", "kill()")
VERDICTS = {
    "SIGKILL": (WorkerCrashed, Cause.SIGNAL, "worker crashed: SIGKILL"),
    "SIGSEGV": (WorkerCrashed, Cause.SIGNAL, "worker crashed: SIGSEGV"),
    "garbage": (WorkerCrashed, Cause.PROTOCOL, "worker crashed: protocol violation: "),
    "kill()": (WorkerCrashed, Cause.CANCELLED, "worker crashed: killed by kill()"),
    "spin": (WallClockExceeded, Cause.WALL, f"wall-clock limit of {HASTY_S:g} s exceeded"),
    "fill": (RssExceeded, Cause.RSS, "RSS limit of 96 MiB exceeded ("),
}
CELLS = [(kind, moment) for kind in VERDICTS for moment in MOMENTS if kind in STRIKES or moment != "idle"]


class Scene:
    """A supervisor, two instances that share a worker with whoever dies, and one of another module."""

    def __init__(self, wall_s):
        limits = Limits(wall_s=wall_s, rss_bytes=RSS, memory_bytes=512 * MIB, fuel=None)
        self.host = Supervisor(isolation="module", hardening="off", limits=limits, spares=0)
        self.modules = [self.host.compile(GUEST.format(number=number)) for number in (42, 43)]
        self.other = self.instantiate(1)

    def instantiate(self, module=0, ask=lambda: GO_ON):
        functions = {("m", "ask"): HostFunction(lambda _caller: ask(), results=("i32",))}
        return self.host.instantiate(self.modules[module], WasmImports(functions=functions))


@pytest.fixture(scope="module")
def scenes():
    """Two: one with plenty of time, one where it is up soon, also for what is instantiated."""
    made = {wall_s: Scene(wall_s) for wall_s in (PATIENT_S, HASTY_S)}
    yield made
    for scene in made.values():
        scene.host.close()


def strike(kind, victim, worker):
    """Do it to the worker, whose pidfd `worker` is, and return when it is done."""
    if kind == "kill()":
        victim.kill()
    elif kind == "garbage":
        # Into the pipe that its replies come through, as if it had said so.
        ours = os.fstat(victim._handle.ends.replies).st_ino
        held = f"/proc/{victim.pid}/fd"
        theirs = next(fd for fd in map(int, os.listdir(held)) if os.stat(f"{held}/{fd}").st_ino == ours)
        with open(f"{held}/{theirs}", "wb", buffering=0) as pipe:
            pipe.write(b"\xff" * 64)
    else:
        signal.pidfd_send_signal(worker, getattr(signal, kind))
        if kind == "SIGSEGV":  # the first goes to the engine's handler, which takes it for nobody's
            while not select.select([worker], [], [], 0.05)[0]:
                signal.pidfd_send_signal(worker, getattr(signal, kind))
        assert select.select([worker], [], [], PATIENT_S)[0]


@pytest.mark.parametrize(("kind", "moment"), CELLS, ids=lambda word: word.replace(" ", "_"))
def test_all_are_told_the_first_cause(scenes, kind, moment):
    """Each instance of the worker raises the same class, cause and text, at once and ever after; other modules' do not,
    and the next instance of this one gets another worker."""
    cls, cause, text = VERDICTS[kind]
    scene = scenes[HASTY_S if kind == "spin" else PATIENT_S]
    armed = threading.Event()

    def ask():
        if not armed.is_set():
            return GO_ON
        armed.clear()
        if kind in STRIKES:
            strike(kind, neighbour, worker)
            return GO_ON
        return SPIN if kind == "spin" else FILL

    victim, neighbour, third = scene.instantiate(ask=ask), scene.instantiate(), scene.instantiate()
    assert victim.pid == neighbour.pid == third.pid != scene.other.pid
    pid, worker = victim.pid, os.pidfd_open(victim.pid)
    try:
        with pytest.raises(Trap) as caught:
            if moment == "idle":
                strike(kind, neighbour, worker)
                victim.call("ok", wall_s=PATIENT_S)
            armed.set()
            if moment == "in a call":
                victim.call("do")
            elif moment == "in a batch":
                victim.call_many("do", [[]] * 3)
            else:
                scene.instantiate(ask=ask)
        error = caught.value
        assert (type(error), error.cause) == (cls, cause)
        assert error.message.startswith(text)
        assert error.pid == pid
        assert select.select([worker], [], [], PATIENT_S)[0], "the worker lives on"
        for instance in (neighbour, third, victim):
            told_again(instance, error)
        neighbour.close()
        third.kill()
        told_again(third, error)
    finally:
        os.close(worker)
    assert scene.other.call("ok", wall_s=PATIENT_S)[0].value == 43
    fresh = scene.instantiate()
    assert fresh.pid != pid
    assert fresh.call("do", wall_s=PATIENT_S)[0].value == 42
    fresh.close()
    victim.close()
    third.close()
    assert wait_until(lambda: victim._handle.ended, PATIENT_S)


def told_again(instance, error):
    """Every use of it raises an equal error."""
    assert not instance.alive
    for use in (
        lambda: instance.call("ok"),
        lambda: instance.call_many("ok", [[]]),
        lambda: instance.func("ok")(),  # noqa: PLW0108 - `func` itself is part of the use
        lambda: instance.memory_read(0, 1),
        lambda: instance.memory_write(0, b"x"),
        lambda: instance.set_fuel(1),
    ):
        with pytest.raises(type(error)) as again:
            use()
        assert again.value == error
        assert again.value is not error, "an exception object belongs to one raise"
        assert (again.value.cause, again.value.signal) == (error.cause, error.signal)
