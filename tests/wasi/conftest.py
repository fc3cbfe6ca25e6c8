"""Fixtures for WASI: a host in this process, probes of our WASI and of plain wasmtime's on equal directories."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from probe import Ours, Plain

from pdsandbox import Dir, Wasi, WasmtimeHost
from pdsandbox.runtime.wasi import beneath, system


@pytest.fixture(scope="session")
def local():
    """One WasmtimeHost."""
    with WasmtimeHost() as host:
        yield host


@pytest.fixture(scope="session")
def plain_wasmtime():
    """plain_wasmtime(what, *args): asks the process in which plain wasmtime runs."""
    command = [sys.executable, str(Path(__file__).with_name("plain_wasmtime.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def ask(what, *args):
            pickle.dump((what, args), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)

        yield ask


@pytest.fixture(params=["openat2", "walk"])
def opener(request, monkeypatch):
    """Both ways to resolve a path."""
    made = beneath.KernelOpener() if request.param == "openat2" else beneath.WalkingOpener()
    monkeypatch.setattr(system, "opener", lambda _fd: made)
    return made


@pytest.fixture
def probe(local):
    """probe(**grants): our probe, closed after the test."""
    made = []

    def make(**grants):
        made.append(Ours(local, Wasi(**grants)))
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
