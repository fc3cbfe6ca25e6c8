"""Compiled code is native code: nobody can change it once it was compiled, and a worker takes none that could be."""

from __future__ import annotations

import mmap
import os

import pytest

from pdsandbox import Supervisor, WorkerCrashed
from pdsandbox.platform import os_

GUEST = '(module (func (export "ok") (result i32) (i32.const 42)))'


@pytest.fixture
def supervisor():
    with Supervisor(spares=0) as host:
        yield host


def test_nobody_can_change_an_artifact(supervisor):
    """Neither by writing, nor by its size, nor by a mapping; not even whoever made it, nor by taking the seals off."""
    module = supervisor.compile(GUEST)
    artifact = module.compiled.artifact.duplicate()
    try:
        fd = artifact.fd
        assert os_.is_sealed(fd)
        for attempt in (
            lambda: os.pwrite(fd, b"\xcc", 0),
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 1 << 30),
            lambda: mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
            lambda: os_.seal(fd),
        ):
            with pytest.raises(PermissionError):
                attempt()
    finally:
        artifact.close()
    with supervisor.instantiate(module) as instance:
        assert instance.func("ok")() == 42


def test_a_worker_takes_no_other(supervisor, monkeypatch):
    """A file that somebody could still write to is not loaded: the worker leaves."""
    monkeypatch.setattr(os_, "seal", lambda _fd: None)
    module = supervisor.compile(GUEST)
    with pytest.raises(WorkerCrashed) as caught:
        supervisor.instantiate(module)
    assert b"not sealed" in caught.value.stderr_tail
