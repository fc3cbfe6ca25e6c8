"""`cgroup=`: the kernel keeps `rss_bytes` for each worker, without samples; its verdict is told from its events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from supervising import MIB, eventually, expect

from pdsandbox import I32, Cause, CompileError, InstantiationError, Limits, RssExceeded, Supervisor, WorkerCrashed
from pdsandbox.platform.lockdown import cgroup
from pdsandbox.supervisor import monitor

LIMIT = 64 * MIB
GUEST = """(module (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "grow") (param i32) (drop (memory.grow (local.get 0))))
  (func (export "fill") (param $pages i32)
    (drop (memory.grow (local.get $pages)))
    (memory.fill (i32.const 0) (i32.const 1) (i32.mul (local.get $pages) (i32.const 65536)))))"""
PAGE = 65536


def delegated():
    """A new directory under this process's own memory cgroup, or the reason why there is none."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
            made = f"{root}{path.rstrip('/')}/pdsandbox-test-{os.getpid()}"
            try:
                os.mkdir(made)
            except OSError:
                continue
            try:
                cgroup.check(made)
            except OSError:
                os.rmdir(made)
                continue
            return made
    return None


@pytest.fixture
def base():
    made = delegated()
    if made is None:
        pytest.skip("no cgroup directory with a memory controller can be made here")
    yield made
    os.rmdir(made)  # fails when a leaf was left


def leaves(base):
    return [name for name in os.listdir(base) if name.startswith("pdsandbox-")]


def make(base, **options):
    return Supervisor(cgroup=base, limits=Limits(rss_bytes=LIMIT, memory_bytes=512 * MIB, fuel=None), **options)


def test_the_kernel_keeps_the_limit(base, monkeypatch):
    """Nobody samples; a guest just under lives, one just over is RssExceeded with both figures; others live on."""
    monkeypatch.setattr(monitor, "over", lambda *_: None)
    with make(base, spares=0) as host:
        module = host.compile(GUEST)
        neighbour = host.instantiate(module)
        under, over = host.instantiate(module), host.instantiate(module)
        under.call("fill", [LIMIT // PAGE // 2])
        error = expect(RssExceeded, Cause.RSS, lambda: over.call("fill", [LIMIT // PAGE * 2]))
        assert error.limit == LIMIT
        assert LIMIT * 9 // 10 <= error.observed <= LIMIT + 16 * MIB
        assert under.call("ok") == neighbour.call("ok") == [I32(42)]


def test_the_kernel_keeps_the_limit_of_writes_from_outside(base, monkeypatch):
    """What the supervisor writes into a worker's memory is the worker's: the kernel ends it, and no lie is seen in
    what it makes of the write."""
    monkeypatch.setattr(monitor, "over", lambda *_: None)
    with make(base, spares=0) as host:
        under, over = (host.instantiate(host.compile(GUEST)) for _ in range(2))
        for instance in (under, over):
            instance.memory_read(0, 1)
            instance.call("grow", [LIMIT // PAGE * 4])
        under.memory_write(0, bytes(LIMIT // 2))

        def write():
            over.memory_write(0, bytes(LIMIT * 3))
            over.call("ok")

        error = expect(RssExceeded, Cause.RSS, write)
        assert error.limit == LIMIT
        assert under.call("ok") == [I32(42)]


def test_another_sigkill_is_what_was_seen(base):
    """Killed by somebody else: no verdict on its memory."""
    with make(base, spares=0) as host, host.instantiate(host.compile(GUEST)) as instance:
        os.kill(instance.pid, 9)
        expect(WorkerCrashed, Cause.SIGNAL, lambda: instance.call("ok"))


def test_each_worker_has_a_leaf_and_leaves_none(base):
    """One for each worker and spare while it lives; none once it is gone, nor after the supervisor."""
    with make(base, spares=1) as host:
        instance = host.instantiate(host.compile(GUEST))
        eventually(lambda: len(leaves(base)) == 2)  # its own, and the next spare's
        where = Path(f"/proc/{instance.pid}/cgroup").read_text(encoding="ascii")
        assert any(name in where for name in leaves(base))
        instance.close()
        eventually(lambda: len(leaves(base)) == 1)
    eventually(lambda: not leaves(base))


@pytest.mark.orphans
def test_what_a_killed_fork_server_left_is_swept(base):
    """The next fork server removes the leaves of those that are dead."""
    with make(base, spares=0) as host:
        with host.instantiate(host.compile(GUEST)):
            os.kill(host._processes.fork_server.pid, 9)
            eventually(lambda: host._processes.fork_server.lost)
        with host.instantiate(host.compile(GUEST)) as instance:
            eventually(lambda: len(leaves(base)) == 1)
            assert instance.call("ok") == [I32(42)]


@pytest.mark.parametrize("what", ["no directory", "no cgroup"])
def test_what_is_no_cgroup(what, tmp_path):
    """HOST, naming the directory."""
    path = tmp_path / "missing" if what == "no directory" else tmp_path
    with Supervisor(cgroup=path) as host:
        with pytest.raises((CompileError, InstantiationError), match="is not a cgroup directory") as caught:
            host.compile("(module)")
        assert caught.value.cause is Cause.HOST
        assert str(path) in str(caught.value)
