"""Every way in which a worker may end or turn bad, at every moment: one exact verdict, and nobody else is touched."""

from __future__ import annotations

import dataclasses
import errno
import os
import select
import signal
import time

import misbehaviour
import psutil
import pytest
from copying import refuse_copies
from leaks import wait_until
from misbehaviour import ALARM, GUEST, KINDS, MOMENTS

import pdsandbox.supervisor.channel
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
    in_worker,
)

pytestmark = pytest.mark.deaths

MIB = 1 << 20
RSS = 64 * MIB
# Long enough for a busy machine to instantiate in; what waits for its end waits this long.
HASTY_S = 0.7
PATIENT_S = 60.0
# A raise that waits for nothing; less than any time limit that it could have waited for.
AT_ONCE_S = 5.0
BIG = 4 * MIB - 64


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the user is told."""

    cls: type[Trap]
    cause: Cause
    text: str
    signal: int | None = None
    exit_code: int | None = None


def by_signal(number):
    return Verdict(WorkerCrashed, Cause.SIGNAL, f"worker crashed: {signal.Signals(number).name}", signal=number)


def by_exit(code):
    return Verdict(WorkerCrashed, Cause.EXIT, f"worker crashed: exit code {code}", exit_code=code)


PROTOCOL = Verdict(WorkerCrashed, Cause.PROTOCOL, "worker crashed: protocol violation: ")
WALL = Verdict(WallClockExceeded, Cause.WALL, f"wall-clock limit of {HASTY_S:g} s exceeded")
VERDICTS = {
    "SIGKILL": by_signal(signal.SIGKILL),
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGABRT": by_signal(signal.SIGABRT),
    "null dereference": by_signal(signal.SIGSEGV),
    "_exit(0)": by_exit(0),
    "_exit(3)": by_exit(3),
    "garbage": PROTOCOL,
    "half a frame": WALL,
    "oversized length": PROTOCOL,
    "closed pipes": PROTOCOL,
    "no longer reading": WALL,
    "memory growth": Verdict(RssExceeded, Cause.RSS, "RSS limit of 64 MiB exceeded ("),
}
DYING = {kind for kind, verdict in VERDICTS.items() if verdict.cause in (Cause.SIGNAL, Cause.EXIT)}
SHIPPED = {
    ("m", "strike"): HostFunction(in_worker(misbehaviour.strike), ("i32",)),
    ("m", "arm"): HostFunction(in_worker(misbehaviour.arm), ("i32", "i32")),
}
# Every combination is possible. Where the worker "no longer reads", the supervisor has something big to say: a
# memory_write stands for memory_read, whose request is always small.
CELLS = [(kind, moment) for kind in VERDICTS for moment in MOMENTS]


class Scene:
    """A supervisor, an instance that stays healthy, and room for one that does not."""

    def __init__(self, wall_s):
        # No spares, and all modules now: what comes and goes by itself would count as left behind by a test.
        self.host = Supervisor(
            hardening="off", limits=Limits(wall_s=wall_s, rss_bytes=RSS, memory_bytes=4 * MIB, fuel=None), spares=0
        )
        at_start = [kind for kind, verdict in VERDICTS.items() if (verdict is WALL) == (wall_s == HASTY_S)]
        self.modules = {
            kind: self.host.compile(GUEST.format(start=KINDS.index(kind))) for kind in ("nothing", *at_start)
        }
        self.neighbour = self.instantiate("nothing", lambda caller: 7)
        self.neighbour.memory_write(0, b"neighbour")

    def instantiate(self, at_start, function):
        """An instance whose start function does `at_start`; `function` is its host function here."""
        functions = {**SHIPPED, ("m", "host"): HostFunction(function, results=("i32",))}
        return self.host.instantiate(self.modules[at_start], WasmImports(functions=functions))

    def untouched(self):
        """The neighbour is what it was, and a new instance answers."""
        assert self.neighbour.call("ok", wall_s=PATIENT_S)[0].value == 42
        assert self.neighbour.memory_read(0, 9) == b"neighbour"
        with self.instantiate("nothing", lambda caller: 7) as fresh:
            assert fresh.call("host", wall_s=PATIENT_S)[0].value == 7


@pytest.fixture(scope="module")
def scenes():
    """Two: one with plenty of time, where a hang would show as the wrong verdict; one where time is up soon."""
    made = {wall_s: Scene(wall_s) for wall_s in (PATIENT_S, HASTY_S)}
    yield made
    for scene in made.values():
        scene.host.close()


def armed(scene, moment, kind, function):
    """An instance that will misbehave at that moment."""
    instance = scene.instantiate("nothing", function)
    instance.call("arm", [MOMENTS.index(moment), KINDS.index(kind)], wall_s=PATIENT_S)
    return instance


def while_a_function_runs(kind, instance, worker):
    """In the supervisor: have the worker do it, and return once it is done."""

    def function(caller):
        os.kill(instance().pid, ALARM)
        if kind in DYING:
            assert select.select([worker()], [], [], PATIENT_S)[0]
        elif kind == "memory growth":
            process = psutil.Process(instance().pid)
            assert wait_until(lambda: process.memory_info().rss > RSS, PATIENT_S)
        elif kind == "no longer reading":
            caller.memory_write(0, bytes(BIG))
        return 7

    return function


@pytest.mark.parametrize(("kind", "moment"), CELLS, ids=lambda word: word.replace(" ", "_"))
def test_a_death_and_its_verdict(scenes, monkeypatch, kind, moment):
    """Exactly this class, cause, signal or exit code, at once and ever after; the others answer as before."""
    verdict = VERDICTS[kind]
    scene = scenes[HASTY_S if verdict is WALL else PATIENT_S]
    if kind == "closed pipes":  # a process that does not end is waited for in vain: less long here
        monkeypatch.setattr(pdsandbox.supervisor.channel, "END_GRACE_S", 0.2)
    if moment == "in memory_read":  # where the kernel copies, the worker has no part in it
        refuse_copies(monkeypatch, errno.EPERM)
    instance = worker = None
    try:
        if moment == "instantiating":
            with pytest.raises(Trap) as caught:
                scene.instantiate(kind, lambda caller: 7)
        else:
            function = while_a_function_runs(kind, lambda: instance, lambda: worker)
            if kind == "no longer reading" and moment in ("in memory_read", "in call_many"):
                instance = armed(scene, "idle", kind, function)
                os.kill(instance.pid, ALARM)
            elif moment in ("in a call", "in call_many"):
                instance = scene.instantiate("nothing", function)
            else:
                instance = armed(scene, moment, kind, function)
            worker = os.pidfd_open(instance.pid)
            with pytest.raises(Trap) as caught:
                happen(instance, worker, moment, kind)
            assert select.select([worker], [], [], PATIENT_S)[0], "the worker lives on"
            gone(instance, caught.value)
            assert caught.value.pid == instance.pid
    finally:
        if worker is not None:
            os.close(worker)
    told(caught.value, verdict)
    scene.untouched()


def happen(instance, worker, moment, kind):
    """Use the instance so that it happens."""
    if moment == "in a call":
        instance.call("strike", [KINDS.index(kind)])
    elif moment == "in a host call":
        instance.call("host")
    elif moment == "in memory_read":
        if kind == "no longer reading":
            instance.memory_write(0, bytes(BIG))
        else:
            instance.memory_read(0, 100)
    elif moment == "in call_many":
        if kind == "no longer reading":
            instance.call_many("strike", [[0]] * (BIG // 16))
        else:
            instance.call_many("strike", [[0], [0], [KINDS.index(kind)], [0]])
    elif moment == "idle":
        os.kill(instance.pid, ALARM)
        if kind in DYING:
            assert select.select([worker], [], [], PATIENT_S)[0]
        if kind in DYING or kind == "memory growth":
            # Noticed without being used; what else a worker does in silence shows when it is used.
            assert wait_until(lambda: not instance.alive, PATIENT_S)
        instance.call("ok")


def told(error, verdict):
    """The error is this verdict, and nothing of any other."""
    assert type(error) is verdict.cls
    assert error.cause is verdict.cause
    assert error.message.startswith(verdict.text)
    assert (error.signal, error.exit_code) == (verdict.signal, verdict.exit_code)
    if verdict.cls is RssExceeded:
        assert error.limit == RSS < error.observed
    elif verdict is WALL:
        assert error.limit == HASTY_S
    else:
        assert (error.limit, error.observed) == (None, None)
    if verdict.cause in (Cause.SIGNAL, Cause.EXIT):
        assert error.message == verdict.text
    assert error.trap_code is None
    assert error.frames == ()


def gone(instance, error):
    """Every later use raises the same again, without waiting."""
    assert not instance.alive
    started = time.monotonic()
    for use in (
        lambda: instance.call("ok"),
        lambda: instance.call_many("ok", [[]]),
        lambda: instance.func("ok")(),  # noqa: PLW0108 - `func` itself is part of the use
        lambda: instance.memory_read(0, 1),
        lambda: instance.memory_read_into(0, bytearray(1)),
        lambda: instance.memory_write(0, b"x"),
        lambda: instance.set_fuel(1),
    ):
        with pytest.raises(type(error)) as again:
            use()
        assert again.value == error
        assert again.value is not error, "an exception object belongs to one raise"
        assert again.value.cause is error.cause
    instance.kill()
    instance.close()
    with pytest.raises(type(error)):
        instance.call("ok")
    assert time.monotonic() - started < AT_ONCE_S
