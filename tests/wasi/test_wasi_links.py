"""The times of a link are set for a guest in a worker on that link alone, whatever its worker says."""

from __future__ import annotations

import errno
import os

import pytest

from pdsandbox import Dir
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.supervisor.links import Links

THEN = (1_000_000_000, 5)


@pytest.fixture
def scene(tmp_path):
    """`rw` and `ro` are granted; `out` is not."""
    for name in ("rw", "ro", "out"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"")
        os.symlink("file", tmp_path / name / "link")
        os.symlink("../file", tmp_path / name / "sub" / "link")
    os.symlink("../out", tmp_path / "rw" / "away")
    return tmp_path


def links(scene):
    """As the supervisor makes them, with the directories open for now."""
    dirs = [Dir(scene / "rw", "/rw", "rw"), Dir(scene / "ro", "/ro")]
    fds = [os.open(item.host_path, os.O_RDONLY) for item in dirs]
    try:
        return Links(dirs, fds)
    finally:
        for fd in fds:
            os.close(fd)


def said(path, found, atime=THEN, mtime=THEN):
    """Data of a LINK_TIMES for what is at `found`."""
    stat = os.lstat(found)
    return m.LINK_LAYOUT.pack(stat.st_dev, stat.st_ino, *atime, *mtime) + path.encode()


def times(path):
    stat = os.lstat(path)
    return stat.st_atime_ns, stat.st_mtime_ns


def everything(scene):
    """Times of change: who follows a link changes that of its last access."""
    return {path: times(path)[1] for path in sorted(scene.rglob("*"))}


@pytest.mark.parametrize("path", ["link", "sub/link", "sub/../link", "./sub/./link"])
def test_a_link_s_times_are_set(scene, path):
    """Its own, and those of nothing else."""
    made, found = links(scene), scene / "rw" / os.path.normpath(path)
    before = everything(scene)
    made.set_times(0, said(path, found))
    assert times(found) == (THEN[0] * 10**9 + THEN[1],) * 2
    assert everything(scene) == before | {found: times(found)[1]}


@pytest.mark.parametrize(
    ("path", "found", "number"),
    [
        ("../out/link", "out/link", errno.EXDEV),
        ("away/link", "out/link", errno.EXDEV),
        ("/etc/mtab", "out/link", errno.EXDEV),
        ("file", "rw/file", errno.EPERM),
        ("sub", "rw/sub", errno.EPERM),
        ("link", "rw/sub/link", errno.EPERM),
        ("link", "out/link", errno.EPERM),
        ("missing", "rw/link", errno.ENOENT),
        ("file/link", "rw/link", errno.ENOTDIR),
        ("x" * 5000, "rw/link", errno.ENAMETOOLONG),
    ],
)
def test_whatever_else_a_worker_names_is_left_alone(scene, path, found, number):
    """What is outside, what is no link, what is another one than the worker says that it holds."""
    made, before = links(scene), everything(scene)
    with pytest.raises(OSError) as caught:
        made.set_times(0, said(path, scene / found))
    assert caught.value.errno == number
    assert everything(scene) == before


def test_a_directory_that_another_one_replaced_is_not_entered(scene):
    """What is granted is the directory, not its name."""
    made = links(scene)
    os.rename(scene / "rw", scene / "moved")
    os.rename(scene / "out", scene / "rw")
    before = everything(scene)
    with pytest.raises(OSError) as caught:
        made.set_times(0, said("link", scene / "rw" / "link"))
    assert caught.value.errno == errno.ESTALE
    assert everything(scene) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of somebody else's")
def test_somebody_else_s_link_is_left_alone(scene):
    """The supervisor may be root, and its worker was not."""
    made, link = links(scene), scene / "rw" / "link"
    os.chown(link, 12345, 12345, follow_symlinks=False)
    before = everything(scene)
    with pytest.raises(OSError) as caught:
        made.set_times(0, said("link", link))
    assert caught.value.errno == errno.EPERM
    assert everything(scene) == before


@pytest.mark.parametrize("number", [1, 2, 2**32 - 1])
def test_where_nothing_may_be_changed_an_honest_worker_does_not_ask(scene, number):
    """A directory that is granted for reading, and none at all."""
    with pytest.raises(ProtocolError):
        links(scene).set_times(number, said("link", scene / "ro" / "link"))


@pytest.mark.parametrize("cut", [0, 1, m.LINK_LAYOUT.size - 1, m.LINK_LAYOUT.size])
def test_nonsense_is_refused(scene, cut):
    """Too short, or without a path; a NUL in it; seconds that nobody can have."""
    made, link = links(scene), scene / "rw" / "link"
    bad = [said("link", link)[:cut], said("li\0nk", link), said("link", link, atime=(2**63, 0))]
    for data in bad:
        with pytest.raises(ProtocolError):
            made.set_times(0, data)
