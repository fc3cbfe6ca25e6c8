"""Fixtures for WASI: probes of our WASI on each host, and of plain wasmtime's on equal directories."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from probe import Ours, Plain

from pdsandbox import Dir, Limits, Supervisor, Wasi
from pdsandbox.runtime.wasi import beneath, system


def pytest_collection_modifyitems(items):
    """A worker resolves paths as its kernel lets it: the other way can only be had in this process. One with
    directories is never shared: it is the same again. And so are system calls in a worker that a loop waits for."""
    items[:] = [
        item for item in items if not _walks_in_worker(getattr(item, "callspec", None)) and not _same_again(item)
    ]


#: Files whose guests do nothing that the supervisor would have a part in.
OF_THE_WORKER_ALONE = ("test_wasi_escape", "test_wasi_quota", "test_wasi_process", "test_wasi_against_wasmtime")


def _same_again(item):
    callspec = getattr(item, "callspec", None)
    kind = None if callspec is None else callspec.params.get("host_kind")
    if kind == "asyncio":
        return item.path.stem in OF_THE_WORKER_ALONE
    return kind == "module" and not {"opener", "rw", "both"}.isdisjoint(item.fixturenames)


def _walks_in_worker(callspec):
    return callspec is not None and {"host_kind": "supervisor", "opener": "walk"}.items() <= callspec.params.items()


@pytest.fixture(scope="session")
def plain_wasmtime(host_kind, host):
    """plain_wasmtime(what, *args): asks the process in which plain wasmtime runs. It ends before the hosts of this kind
    that are older are closed."""
    command = [sys.executable, str(Path(__file__).with_name("plain_wasmtime.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def ask(what, *args):
            pickle.dump((what, args), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)

        yield ask


@pytest.fixture(params=["openat2", "walk"])
def opener(request, host_kind, monkeypatch):
    """Both ways to resolve a path."""
    if host_kind == "wasmtime":
        made = beneath.KernelOpener() if request.param == "openat2" else beneath.WalkingOpener()
        monkeypatch.setattr(system, "opener", lambda _fd: made)


@pytest.fixture
def probe(host):
    """probe(**grants): our probe, closed after the test."""
    made = []

    def make(**grants):
        made.append(Ours(host, Wasi(**grants)))
        return made[-1]

    yield make
    for each in made:
        each.instance.close()


@pytest.fixture
def rw(probe, tmp_path):
    """Our probe with `tmp_path` as "/", for reading and writing."""
    return probe(dirs=[Dir(tmp_path, "/", "rw")])


@pytest.fixture
def both(probe, tmp_path, plain_wasmtime):
    """both(build, mode="rw"): (ours, plain wasmtime's), each with a directory of its own that `build` has filled."""

    plains = []

    def make(build, mode="rw"):
        for name in ("ours", "plain"):
            (tmp_path / name).mkdir()
            build(tmp_path / name)
        plains.append(Plain(plain_wasmtime, [(str(tmp_path / "plain"), "/", mode == "rw")]))
        return probe(dirs=[Dir(tmp_path / "ours", "/", mode)]), plains[-1]

    yield make
    for plain in plains:
        plain.close()


@pytest.fixture(scope="session")
def workers():
    """One Supervisor for what only workers have."""
    with Supervisor(spares=0, limits=Limits(wall_s=60, fuel=None)) as made:
        made.instantiate(made.compile("(module)")).close()
        yield made


@pytest.fixture
def begin(workers):
    """begin(source, imports=None, on=workers, **grants): an instance, closed after the test."""
    made = []

    def make(source, imports=None, *, on=workers, **grants):
        made.append(on.instantiate(on.compile(source), imports, wasi=Wasi(**grants)))
        return made[-1]

    yield make
    for each in made:
        each.close()
