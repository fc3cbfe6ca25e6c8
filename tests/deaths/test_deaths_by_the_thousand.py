"""2,000 deaths in a row, of every kind and at every moment: afterwards everything that can be counted is as before."""

from __future__ import annotations

import collections
import dataclasses
import errno
import faulthandler
import os
import select
import signal
import tempfile
from pathlib import Path

import misbehaviour
import psutil
import pytest
from copying import refuse_copies
from leaks import descendants, fds, wait_until
from misbehaviour import ALARM, GUEST, KINDS, MOMENTS

from pdsandbox import Cause, HostFunction, Limits, Supervisor, Trap, WasmImports, in_worker

MIB = 1 << 20
DEATHS = 2000
WARM_UP = 200
PATIENT_S = 60.0
WORKER = "pdsandbox-work"
# The supervisor here is a pytest process, whose own bookkeeping is in this figure; a leak of one page a death
# would be 8 MiB. Seen: 0.2 MiB here, nothing in the fork server.
GROWTH_BYTES = 4 * MIB

# A signal from outside needs nothing shipped into the worker, which takes most of the time: these are the many.
OUTSIDE = [
    (number, moment)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGALRM)
    for moment in ("in a host call", "in a host call of a batch", "in memory_read", "in call_many", "idle", "unseen")
]
PLAIN = """(module (import "m" "host" (func $host (result i32))) (memory (export "memory") 2)
  (func (export "host") (result i32) (call $host))
  (func (export "ok") (result i32) (i32.const 42)))"""
# What only the worker itself can do. Not those that wait for a time limit, of which the matrix has its fill.
INSIDE = [
    (kind, moment)
    for kind in ("null dereference", "_exit(0)", "_exit(3)", "garbage", "oversized length", "memory growth")
    for moment in MOMENTS
    if (kind, moment) != ("memory growth", "idle")  # found by the housekeeper, which looks four times a second
]


@dataclasses.dataclass
class Census:
    """Everything that deaths could leave behind, over this process and all its descendants."""

    processes: collections.Counter[tuple[str, bool]]  # by name, and whether it is a zombie
    descriptors: collections.Counter[tuple[str, str]]  # by name of the process, and kind
    files: list[str]
    threads: int


def count(folder):
    """The census of this moment."""
    processes = [psutil.Process(pid) for pid in {os.getpid(), *descendants()}]
    return Census(
        collections.Counter((process.name(), process.status() == "zombie") for process in processes),
        collections.Counter((process.name(), kind) for process in processes for kind in kinds(process)),
        sorted(os.listdir(folder)),
        psutil.Process().num_threads(),
    )


def kinds(process):
    """What a process has open, by kind: pipe, socket, memfd, pidfd, …"""
    if process.pid == os.getpid():
        targets = fds().values()
    else:
        targets = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
    return [kind(target) for target in targets]


def kind(target):
    """A descriptor's target without what is different each time."""
    if target.startswith(("pipe:", "socket:")):
        return target.partition("[")[0]
    return "/proc/…" if target.startswith("/proc/") else target


def census(folder, workers=None):
    """One of a moment at which nothing comes or goes, all spares are there, and no zombie is."""
    found = []

    def still():
        try:
            found.append(count(folder))
        except (psutil.Error, OSError):  # somebody went while we counted
            return False
        if workers is not None and found[-1].processes[WORKER, False] != workers:
            return False
        if any(zombie for _, zombie in found[-1].processes):  # one that the supervisor has yet to hear of
            return False
        return len(found) > 1 and found[-1] == found[-2]

    assert wait_until(still, PATIENT_S), found[-1]
    return found[-1]


class Victims:
    """Makes instances of a supervisor, and sees each one die."""

    def __init__(self, host):
        self.host = host
        self.plain = host.compile(PLAIN)
        at_start = ("nothing", *dict(INSIDE))
        self.modules = {name: host.compile(GUEST.format(start=KINDS.index(name))) for name in at_start}
        self.shipped = {
            ("m", "strike"): HostFunction(in_worker(misbehaviour.strike), ("i32",)),
            ("m", "arm"): HostFunction(in_worker(misbehaviour.arm), ("i32", "i32")),
        }

    def from_outside(self, number, moment):
        """A worker that is killed by a signal."""

        def shoot(caller=None):
            os.kill(instance.pid, number)
            assert select.select([worker], [], [], PATIENT_S)[0]
            return 7

        imports = WasmImports(functions={("m", "host"): HostFunction(shoot, results=("i32",))})
        instance = self.host.instantiate(self.plain, imports)
        worker = os.pidfd_open(instance.pid)
        try:
            with pytest.raises(Trap) as caught:
                if moment == "in a host call":
                    instance.call("host")
                elif moment == "in a host call of a batch":
                    instance.call_many("host", [()] * 3)
                else:
                    shoot() if moment != "unseen" else os.kill(instance.pid, number)
                    while True:  # the signal may take a moment
                        instance.memory_read(0, 100_000) if moment == "in memory_read" else None
                        instance.call_many("ok", [()] * 10) if moment == "in call_many" else instance.call("ok")
        finally:
            os.close(worker)
        assert (caught.value.cause, caught.value.signal) == (Cause.SIGNAL, number)

    def from_inside(self, kind, moment):
        """A worker that turns bad by itself."""
        at_start = kind if moment == "instantiating" else "nothing"

        def alarm(caller):
            os.kill(instance.pid, ALARM)
            return 7

        functions = {**self.shipped, ("m", "host"): HostFunction(alarm, results=("i32",))}
        with pytest.raises(Trap) as caught:
            instance = self.host.instantiate(self.modules[at_start], WasmImports(functions=functions))
            if moment == "in a call":
                instance.call("strike", [KINDS.index(kind)])
            elif moment == "in call_many":
                instance.call_many("strike", [[0], [KINDS.index(kind)]])
            else:
                instance.call("arm", [MOMENTS.index(moment), KINDS.index(kind)])
                if moment == "in a host call":
                    instance.call("host")
                elif moment == "idle":
                    os.kill(instance.pid, ALARM)
                with pytest.MonkeyPatch.context() as patch:
                    refuse_copies(patch, errno.EPERM)  # else the worker would have no part in it
                    while True:
                        instance.memory_read(0, 100)
        assert caught.value.cause in (Cause.SIGNAL, Cause.EXIT, Cause.PROTOCOL, Cause.RSS)


@pytest.mark.deaths
@pytest.mark.timeout(240)
def test_two_thousand_deaths_leave_nothing(tmp_path, monkeypatch):
    """Processes, zombies, threads, descriptors, memfds, temporary files: as before; memory: as good as before."""
    faulthandler.cancel_dump_traceback_later()  # pytest's, whose thread ends when it barks, on a busy machine
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    children, workers = {*psutil.Process().children()}, census(tmp_path).processes[WORKER, False]
    limits = Limits(wall_s=PATIENT_S, rss_bytes=64 * MIB, memory_bytes=4 * MIB, fuel=None)
    with Supervisor(hardening="off", limits=limits, spares=2) as host:
        victims = Victims(host)
        functions = {("m", "host"): HostFunction(lambda caller: 7, results=("i32",))}
        neighbour = host.instantiate(victims.plain, WasmImports(functions=functions))
        neighbour.memory_write(0, b"neighbour")

        def die(first, count):
            for n in range(first, first + count):
                if n % 16:
                    victims.from_outside(*OUTSIDE[n % len(OUTSIDE)])
                else:
                    victims.from_inside(*INSIDE[n // 16 % len(INSIDE)])

        die(0, WARM_UP)
        workers += 3  # the neighbour and two spares
        before, memory_before = census(tmp_path, workers), memory(children)
        die(WARM_UP, DEATHS)
        after, memory_after = census(tmp_path, workers), memory(children)
        assert after == before
        assert after.files == []
        grown = {who: memory_after[who] - memory_before[who] for who in memory_after}
        assert all(bytes_ < GROWTH_BYTES for bytes_ in grown.values()), grown
        assert neighbour.memory_read(0, 9) == b"neighbour"
        assert neighbour.call("ok")[0].value == 42


def memory(others):
    """Resident bytes of the supervisor's process and of its fork server."""
    (server,) = {*psutil.Process().children()} - others
    return {"supervisor": psutil.Process().memory_info().rss, "fork server": server.memory_info().rss}
