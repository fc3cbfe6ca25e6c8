"""An entry that is not what was written: never loaded, set aside, told once, and made good by the next store."""

from __future__ import annotations

import os
import shutil
import socket
import stat

import pytest
from caching import SOURCE_BYTES, code_of, key

from pdsandbox.platform import os_
from pdsandbox.supervisor import disk

CODE = b"native code" * 100
ROOT = os.geteuid() == 0


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def replace(path, make):
    path.unlink()
    make(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # the path of a socket may have 107 bytes
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def make_full_directory(path):
    path.mkdir()
    (path / "somebody's").write_text("file")


def link_to_copy(path):
    copy = path.with_suffix(".copy")
    path.rename(copy)
    path.symlink_to(copy)


SPOILED = {
    "a flipped byte": (flip, "tag"),
    "its last byte cut off": (lambda path: os.truncate(path, path.stat().st_size - 1), "length"),
    "cut in its head": (lambda path: os.truncate(path, 50), "too short"),
    "empty": (lambda path: os.truncate(path, 0), "too short"),
    "longer": (lambda path: os.truncate(path, path.stat().st_size + 1), "length"),
    "huge": (lambda path: os.truncate(path, 1 << 40), "length"),
    "something else": (lambda path: path.write_bytes(b"#!/bin/sh\n" * 100), "another format"),
    "another entry": (lambda path: shutil.copy(path.with_name("other"), path), "something else"),
    "a directory": (lambda path: replace(path, lambda path: path.mkdir()), "not a regular file"),
    "a full directory": (lambda path: replace(path, make_full_directory), "not a regular file"),
    "a fifo": (lambda path: replace(path, lambda path: os.mkfifo(path, 0o600)), "not a regular file"),
    "a socket": (lambda path: replace(path, make_socket), "not a regular file"),
    "a link to a good one": (link_to_copy, "not a regular file"),
    "a link to nothing": (lambda path: replace(path, lambda path: path.symlink_to("gone")), "not a regular file"),
    "a link to itself": (lambda path: replace(path, lambda path: path.symlink_to(path.name)), "not a regular file"),
    "readable for others": (lambda path: path.chmod(0o644), "open to others (mode 644)"),
    "writable for a group": (lambda path: path.chmod(0o620), "open to others"),
}
if ROOT:
    SPOILED["another user's"] = (lambda path: os.chown(path, 12345, -1), "owned by user 12345")
    SPOILED["a device"] = (
        lambda path: replace(path, lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))),
        "not a regular file",
    )


@pytest.mark.parametrize("how", SPOILED)
def test_what_was_spoiled(shelf, told, how):
    """Not loaded; out of the way; one warning; and after the next store it is there again, without another."""
    spoil, why = SPOILED[how]
    entry = shelf.store("this", CODE)
    shelf.store("that", CODE).rename(entry.with_name("other"))
    assert shelf.load("this") == CODE
    assert told.warnings == []
    spoil(entry)
    assert shelf.load("this") is None
    told.once(str(shelf.path), entry.name, why)
    assert not os.path.lexists(entry)
    assert os.path.lexists(shelf.damaged("this"))
    assert shelf.load("this") is None  # a miss like any other
    shelf.store("this", CODE)
    told.forget()
    assert shelf.load("this") == CODE
    assert told.warnings == []


@pytest.mark.parametrize("before", ["a full directory", "a directory", "a flipped byte"])
@pytest.mark.parametrize("now", ["a full directory", "a flipped byte", "a fifo"])
def test_set_aside_twice(shelf, told, before, now):
    """Whatever lies where it is to be set aside, it gets out of the way."""
    for how in (before, now):
        entry = shelf.store("this", CODE)
        shelf.store("that", CODE).rename(entry.with_name("other"))
        SPOILED[how][0](entry)
        assert shelf.load("this") is None
        assert not os.path.lexists(entry)
    shelf.store("this", CODE)
    assert shelf.load("this") == CODE
    told.once()


def test_one_warning_for_each_cache(shelf, told):
    """Ten damaged entries are one warning, and another supervisor's first is told again."""
    for number in range(10):
        flip(shelf.store(number, CODE))
        assert shelf.load(number) is None
    told.once()
    told.forget()
    shelf.cache = shelf.fresh()
    for number in range(2):
        flip(shelf.store(number, CODE))
        assert shelf.load(number) is None
    told.once()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_file_that_changes_while_it_is_read(shelf, told, monkeypatch, turn):
    """What is hashed is what is handed on: a change of the code before head, types or code are read is found."""
    entry, read, reads = shelf.store("this", CODE), disk._read, []

    def reading(fd, count):
        reads.append(count)
        if len(reads) == turn:
            flip(entry)
        return read(fd, count)

    monkeypatch.setattr(disk, "_read", reading)
    assert shelf.load("this") is None
    assert len(reads) == 3
    told.once("tag")


def test_a_file_that_changes_once_it_was_read(shelf, monkeypatch):
    """That comes too late: what is hashed, and handed on, is the copy."""
    entry, seal, sealed = shelf.store("this", CODE), os_.seal, []

    def sealing(fd):
        flip(entry)
        sealed.append(fd)
        seal(fd)

    monkeypatch.setattr(os_, "seal", sealing)
    assert shelf.load("this") == CODE
    assert len(sealed) == 1
    assert shelf.load("this") is None


def test_a_file_that_is_cut_while_it_is_read(shelf, told, monkeypatch):
    """Damaged, and no endless wait for the rest."""
    entry, read, reads = shelf.store("this", CODE), disk._read, []

    def reading(fd, count):
        found = read(fd, count)
        reads.append(count)
        if len(reads) == 2:
            os.truncate(entry, 300)
        return found

    monkeypatch.setattr(disk, "_read", reading)
    assert shelf.load("this") is None
    told.once("was cut while it was read")


def test_a_change_after_loading_reaches_nobody(shelf):
    """What was loaded is a copy of its own."""
    entry = shelf.store("this", CODE)
    found = shelf.cache.load(key("this"), SOURCE_BYTES, lambda action: action())
    assert found is not None
    entry.write_bytes(b"x" * entry.stat().st_size)
    assert code_of(found) == CODE
    found.artifact.close()


def test_a_new_entry_is_not_set_aside_for_the_old_one(shelf, monkeypatch):
    """Another process has replaced the damaged entry before this one sets it aside: it stays."""
    entry = shelf.store("this", CODE)
    flip(entry)
    tag = disk.Sealer.check

    def check(self, expected):
        monkeypatch.setattr(disk.Sealer, "check", tag)
        shelf.store("this", CODE)
        tag(self, expected)

    monkeypatch.setattr(disk.Sealer, "check", check)
    assert shelf.load("this") is None
    assert shelf.load("this") == CODE
