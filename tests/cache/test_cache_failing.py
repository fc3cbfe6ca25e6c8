"""A disk that is full, may only be read, or fails: what was compiled is used, one warning, nothing half is left."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from caching import SOURCE_BYTES, Shelf, code_of, compiled, key

import pdsandbox
from pdsandbox.supervisor import disk

CODE = b"native code" * 100
LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT = 1, 32


@pytest.fixture
def tiny(tmp_path):
    """A file system of its own with 64 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    if LIBC.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, b"size=64k,mode=0755"):
        pytest.skip(f"may not mount: {os.strerror(ctypes.get_errno())}")
    yield path
    assert not LIBC.umount2(os.fsencode(path), 0)


def test_a_full_disk(tiny, tmp_path, told):
    """What does not fit is not there, nor any part of it; what was there stays, and so does what still fits."""
    shelf = Shelf(tiny)
    shelf.store("small", CODE)
    shelf.store("large", b"x" * 100_000)
    told.once("could not be written", os.strerror(errno.ENOSPC))
    assert shelf.names() == {shelf.entry("small").name}
    assert shelf.load("small") == CODE
    assert shelf.load("large") is None
    shelf.store("another", CODE)
    assert shelf.load("another") == CODE
    told.once()


def test_a_disk_too_full_for_a_key(tiny, told):
    """Nothing is stored without one."""
    (tiny / "filler").write_bytes(b"x" * (60 << 10))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (tiny / "more").write_bytes(b"x" * (60 << 10))
    shelf = Shelf(tiny)
    shelf.store("this", CODE)
    told.once("could not be written", os.strerror(errno.ENOSPC))
    assert shelf.load("this") is None


def test_a_disk_that_may_only_be_read(tiny, told):
    """It serves what it has, without a word; that nothing more can be stored is told when something is."""
    shelf = Shelf(tiny)
    shelf.store("this", CODE)
    assert not LIBC.mount(None, os.fsencode(tiny), None, MS_REMOUNT | MS_RDONLY, None)
    assert shelf.load("this") == CODE
    assert shelf.load("that") is None
    assert told.warnings == []
    shelf.store("that", CODE)
    told.once("could not be written", os.strerror(errno.EROFS))


def test_a_damaged_entry_on_a_disk_that_may_only_be_read(tiny, told):
    """It is not loaded, though it cannot be set aside."""
    shelf = Shelf(tiny)
    os.truncate(shelf.store("this", CODE), 300)
    assert not LIBC.mount(None, os.fsencode(tiny), None, MS_REMOUNT | MS_RDONLY, None)
    assert shelf.load("this") is None
    told.once("damaged entry", "could not be set aside", "a length that does not fit")


CALLS = ["open", "write", "fsync", "fstat", "rename", "fchmod", "utime", "scandir", "unlink", "stat", "read"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT, errno.EMFILE])
def test_any_call_may_fail(shelf, monkeypatch, told, call, number):
    """Each call in turn fails once, whatever it was for: no exception, at most one warning, whole entries only."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # it takes 10 ms
    shelf.store("this", CODE)
    real, module, before = getattr(os, call), compiled(CODE * 2), descriptors()
    ours = threading.get_ident()
    for turn in range(1, 100):
        calls = []

        def failing(*args, calls=calls, turn=turn, **options):
            if threading.get_ident() != ours:  # a supervisor's of other tests, which looks after its workers
                return real(*args, **options)
            calls.append(call)
            if len(calls) == turn:
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        shelf.cache = shelf.fresh()
        told.forget()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            found = shelf.cache.load(key("this"), SOURCE_BYTES, lambda action: action())
            shelf.cache.store(key(turn), bytes(32), "", module)
        if found is not None:
            assert code_of(found) == CODE
            found.artifact.close()
        assert len(told.warnings) <= 1
        assert shelf.load(turn) in (None, CODE * 2)
        assert {path.suffix for path in shelf.path.iterdir()} <= {".code", ".damaged"} or call == "unlink"
        assert descriptors() == before
        shelf.store("this", CODE)
        assert shelf.load("this") == CODE
        if len(calls) < turn:
            break
    else:
        pytest.fail("there is no end to the calls")
    assert turn > 1 or call == "unlink"
    module.artifact.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_an_interrupt_leaves_nothing_half(shelf, monkeypatch):
    """KeyboardInterrupt anywhere in a store: it is raised, and neither a descriptor nor a file is left."""
    shelf.store("this", CODE)
    module, before = compiled(CODE), descriptors()

    def interrupted(_fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shelf.cache.store(key("that"), bytes(32), "", module)
    assert shelf.names() == {shelf.entry("this").name}
    assert descriptors() == before
    module.artifact.close()


def test_a_limit_on_the_size_of_files(shelf, told):
    """RLIMIT_FSIZE, in a process that may not write so much: EFBIG, no death by SIGXFSZ, nothing half."""
    paths = [str(Path(__file__).parent), str(Path(pdsandbox.__file__).parents[1])]
    script = f"""if True:
        import logging, resource, sys
        sys.path[:0] = {paths!r}
        from pathlib import Path
        from caching import SOURCE_BYTES, Shelf, code_of, compiled, key
        logging.basicConfig(format="%(message)s")
        shelf = Shelf(Path({str(shelf.path.parent)!r}))
        shelf.store("small", b"x" * 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        shelf.store("large", b"x" * 100_000)
        print(shelf.load("small") == b"x" * 1000, shelf.load("large"))
    """
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "True None\n"
    assert ended.stderr.count("\n") == 1
    assert os.strerror(errno.EFBIG) in ended.stderr
    assert shelf.names() == {shelf.entry("small").name}


def test_no_memory_file(shelf, monkeypatch, told):
    """Out of descriptors or memory while loading: the entry is not at fault, and stays."""

    def refused(_name):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    entry = shelf.store("this", CODE)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os_, "memfd", refused)
        assert shelf.load("this") is None
    told.once("could not be read")
    assert entry.exists()
    assert shelf.load("this") == CODE
