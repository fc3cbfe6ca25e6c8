"""`Dir.max_bytes`: what is charged and given back, and that a bomb of bytes or of names stops with DQUOT."""

from __future__ import annotations

import os

import pytest

from pdsandbox import Dir
from pdsandbox.runtime.wasi import abi

RW = abi.rights("fd_read fd_write")
DQUOT = abi.ERRNO["dquot"]


@pytest.fixture
def limited(probe, tmp_path):
    """limited(max_bytes): a probe that may make its directory grow by so much."""
    return lambda max_bytes: probe(dirs=[Dir(tmp_path, "/", "rw", max_bytes)])


def create(p, name, *, oflags=abi.O_CREAT, fdflags=0):
    code, fd = p.open(name, oflags=oflags, rights=RW, fdflags=fdflags)
    assert code == 0
    return fd


def test_the_last_byte_fits_and_the_next_does_not(limited, tmp_path):
    """Exactly `max_bytes`; what is there already may be written again."""
    p = limited(1000)
    fd = create(p, "f")
    assert p.fd_write(fd, bytes(999)) == (0, 999)
    assert p.fd_write(fd, b"x") == (0, 1)
    assert p.fd_write(fd, b"y") == (DQUOT, None)
    assert p.pwrite(fd, b"again", 0) == (0, 5)
    assert (tmp_path / "f").stat().st_size == 1000


def test_what_fits_of_a_write_is_written(limited, tmp_path):
    """As on a full disk: a short write, then the error."""
    p = limited(10)
    fd = create(p, "f")
    assert p.fd_write(fd, b"0123456789abc") == (0, 10)
    assert p.fd_write(fd, b"abc") == (DQUOT, None)
    assert (tmp_path / "f").read_bytes() == b"0123456789"


@pytest.mark.parametrize("how", ["write", "append", "hole", "size", "allocate"])
def test_every_way_to_grow_is_charged(limited, tmp_path, how):
    """Holes as if they were full: filling them later is free."""
    p = limited(1000)
    fd = create(p, "f", fdflags=abi.APPEND if how == "append" else 0)

    def grow(size):
        if how in ("write", "append"):
            return p.fd_write(fd, bytes(size))[0]
        if how == "hole":
            return p.pwrite(fd, b"x", size - 1)[0]
        return p.call(*{"size": ("fd_filestat_set_size", fd, size), "allocate": ("fd_allocate", fd, 0, size)}[how])

    if how in ("size", "allocate", "hole"):
        assert grow(1001) == DQUOT
    assert grow(1000) == 0
    other = create(p, "g")
    assert p.fd_write(other, b"x") == (DQUOT, None)
    assert (tmp_path / "f").stat().st_size == 1000


@pytest.mark.parametrize("how", ["truncate", "size", "unlink", "rename over"])
def test_what_goes_is_given_back(limited, how):
    """So that a program may use the same room again and again."""
    p = limited(1000)
    for _ in range(5):
        fd = create(p, "f")
        assert p.fd_write(fd, bytes(1000)) == (0, 1000)
        if how == "truncate":
            p.call("fd_close", create(p, "f", oflags=abi.O_TRUNC))
        elif how == "size":
            assert p.call("fd_filestat_set_size", fd, 0) == 0
        elif how == "rename over":
            p.call("fd_close", create(p, "g"))
        assert p.call("fd_close", fd) == 0
        if how == "unlink":
            assert p.call("path_unlink_file", 3, *p.put("f")) == 0
        elif how == "rename over":
            assert p.call("path_rename", 3, *p.put("g"), 3, *p.put("f", 0x2000)) == 0


def test_a_deleted_file_that_is_open_is_given_back_when_it_is_closed(limited):
    """Its bytes are still on the disk."""
    p = limited(1000)
    fd = create(p, "f")
    p.fd_write(fd, bytes(600))
    assert p.call("path_unlink_file", 3, *p.put("f")) == 0
    assert p.fd_write(fd, bytes(400)) == (0, 400)
    other = create(p, "g")
    assert p.fd_write(other, b"x") == (DQUOT, None)
    assert p.call("fd_close", fd) == 0
    assert p.fd_write(other, bytes(1000)) == (0, 1000)


def test_a_file_with_another_name_keeps_its_bytes(limited):
    """Deleting one of two names gives nothing back."""
    p = limited(1000)
    fd = create(p, "f")
    p.fd_write(fd, bytes(1000))
    assert p.call("path_link", 3, 0, *p.put("f"), 3, *p.put("g", 0x2000)) == 0
    assert p.call("path_unlink_file", 3, *p.put("f")) == 0
    p.call("fd_close", fd)
    assert p.fd_write(create(p, "h"), b"x") == (DQUOT, None)
    assert p.call("path_unlink_file", 3, *p.put("g")) == 0
    assert p.fd_write(create(p, "h"), b"x") == (0, 1)


def test_renaming_a_file_onto_its_other_name_changes_nothing(limited):
    """POSIX leaves both; neither has gone."""
    p = limited(10)
    p.fd_write(create(p, "f"), bytes(10))
    assert p.call("path_link", 3, 0, *p.put("f"), 3, *p.put("g", 0x2000)) == 0
    assert p.call("path_rename", 3, *p.put("f"), 3, *p.put("g", 0x2000)) == 0
    assert p.fd_write(create(p, "h"), b"x") == (DQUOT, None)


@pytest.mark.parametrize("what", ["files", "directories", "links", "names"])
def test_a_bomb_of_names_stops(limited, tmp_path, what):
    """1024, and one for each 4 KiB; one that is removed makes room for another."""
    p = limited(2 * 4096)
    (tmp_path / "old").write_bytes(b"")

    def make(name):
        if what == "files":
            code, fd = p.open(name, oflags=abi.O_CREAT | abi.O_EXCL, rights=RW)
            if fd is not None:
                p.call("fd_close", fd)
            return code
        if what == "directories":
            return p.call("path_create_directory", 3, *p.put(name))
        if what == "links":
            return p.call("path_symlink", *p.put("t"), 3, *p.put(name, 0x2000))
        return p.call("path_link", 3, 0, *p.put("old"), 3, *p.put(name, 0x2000))

    assert {make(f"n{i}") for i in range(1026)} == {0}
    assert make("more") == DQUOT
    remove = "path_remove_directory" if what == "directories" else "path_unlink_file"
    assert p.call(remove, 3, *p.put("n5")) == 0
    assert [make("more"), make("still more")] == [0, DQUOT]


def test_a_link_s_target_counts(limited):
    """It is kept on the disk as well."""
    p = limited(100)
    assert p.call("path_symlink", *p.put("x" * 101), 3, *p.put("a", 0x2000)) == DQUOT
    assert p.call("path_symlink", *p.put("x" * 100), 3, *p.put("a", 0x2000)) == 0
    assert p.fd_write(create(p, "f"), b"x") == (DQUOT, None)
    assert p.call("path_unlink_file", 3, *p.put("a")) == 0
    assert p.fd_write(create(p, "f"), bytes(100)) == (0, 100)


def test_what_fails_costs_nothing(limited, tmp_path):
    """Neither bytes nor a name."""
    p = limited(10)
    os.mkdir(tmp_path / "d")
    for _ in range(1100):
        assert p.call("path_create_directory", 3, *p.put("d")) == abi.EXIST
        assert p.call("path_symlink", *p.put("0123456789"), 3, *p.put("d", 0x2000)) == abi.EXIST
        assert p.open("d", oflags=abi.O_CREAT | abi.O_EXCL, rights=RW)[0] == abi.EXIST
        assert p.open("no/f", oflags=abi.O_CREAT, rights=RW)[0] == abi.NOENT
    fd = create(p, "f")
    assert p.call("fd_filestat_set_size", fd, 2**62) == DQUOT
    assert p.fd_write(fd, bytes(10)) == (0, 10)


def test_a_file_without_a_name_counts_until_its_last_descriptor_is_closed(limited):
    """However often it is open, and in whatever order it is closed."""
    p = limited(1000)
    first = create(p, "f")
    assert p.fd_write(first, bytes(1000)) == (0, 1000)
    second, third = create(p, "f", oflags=0), create(p, "f", oflags=0)
    assert p.call("path_unlink_file", 3, *p.put("f")) == 0
    new = create(p, "g")
    for fd in (second, first):
        assert p.call("fd_close", fd) == 0
        assert p.fd_write(new, b"x") == (DQUOT, None)
    assert p.call("fd_close", third) == 0
    assert p.fd_write(new, bytes(1001)) == (0, 1000)


@pytest.mark.parametrize("sizes", [(None, 10), (10, None), (10, 10)])
@pytest.mark.parametrize("name", ["path_rename", "path_link"])
def test_no_file_goes_to_another_grant_past_its_quota(probe, tmp_path, name, sizes):
    """XDEV, as between two file systems; within one grant, and between two without quotas, it works."""
    for each in "ab":
        (tmp_path / each).mkdir()
    p = probe(dirs=[Dir(tmp_path / each, f"/{each}", "rw", size) for each, size in zip("ab", sizes, strict=True)])
    (tmp_path / "a" / "f").write_bytes(bytes(1000))
    lookup = (0,) if name == "path_link" else ()
    assert p.call(name, 3, *lookup, *p.put("f"), 4, *p.put("f", 0x2000)) == abi.ERRNO["xdev"]
    assert p.call(name, 3, *lookup, *p.put("f"), 3, *p.put("g", 0x2000)) == 0
    q = probe(dirs=[Dir(tmp_path / each, f"/{each}", "rw") for each in "ab"])
    assert q.call(name, 3, *lookup, *q.put("g"), 4, *q.put("f", 0x2000)) == 0
    assert (tmp_path / "b" / "f").stat().st_size == 1000


def test_each_grant_has_its_own(probe, tmp_path):
    """One that is used up does not touch another, nor another instance's."""
    for name in "ab":
        (tmp_path / name).mkdir()
    dirs = [Dir(tmp_path / "a", "/a", "rw", 10), Dir(tmp_path / "b", "/b", "rw", 10)]
    p, q = probe(dirs=dirs), probe(dirs=dirs)
    for each, fd in ((p, 3), (p, 4), (q, 3)):
        made = each.open(f"f{id(each)}", fd=fd, oflags=abi.O_CREAT, rights=RW)[1]
        assert each.fd_write(made, bytes(11)) == (0, 10)
        assert each.fd_write(made, b"x") == (DQUOT, None)


def test_what_was_there_before_is_not_charged(limited, tmp_path):
    """And room that the guest makes by deleting it is the guest's: the whole grows by no more than `max_bytes`."""
    (tmp_path / "old").write_bytes(bytes(5000))
    p = limited(10)
    fd = create(p, "old", oflags=0)
    assert p.pwrite(fd, bytes(5000), 0) == (0, 5000)
    assert p.pwrite(fd, bytes(100), 5000) == (0, 10)
    p.call("fd_close", fd)
    assert p.call("path_unlink_file", 3, *p.put("old")) == 0
    assert p.fd_write(create(p, "new"), bytes(6000)) == (0, 5010)


def test_a_creation_with_truncation_of_a_directory_is_refused(limited, tmp_path):
    """By steps as at once."""
    os.mkdir(tmp_path / "d")
    p = limited(10)
    assert p.open("d", oflags=abi.O_CREAT, rights=RW)[0] == abi.ISDIR
    assert p.open("d", oflags=abi.O_TRUNC, rights=RW)[0] == abi.ISDIR
    assert p.open("d/", oflags=abi.O_CREAT, rights=RW)[0] == abi.ISDIR
    assert p.open("no/", oflags=abi.O_CREAT, rights=RW)[0] == abi.ISDIR
