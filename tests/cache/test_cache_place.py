"""Where a cache may be, and its key: what is another's, or open to others, is not used, and that is told."""

from __future__ import annotations

import os
import stat

import pytest
from caching import Shelf

from pdsandbox.supervisor import diskplace
from pdsandbox.supervisor.disk import DiskCache
from pdsandbox.supervisor.diskplace import Place, Unusable, default_directory, default_secret

CODE = b"native code"
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="gives a file to another user")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made(shelf):
    """Directories of mode 700, the missing ones above them too, and files of mode 600, whatever the umask."""
    deep = Shelf(shelf.path.parent / "above" / "all")
    for umask in (0o000, 0o077, 0o177):
        before = os.umask(umask)
        try:
            entry = deep.store(umask, CODE)
        finally:
            os.umask(before)
        assert deep.load(umask) == CODE
        assert [mode(path) for path in (deep.path, deep.path.parents[0], deep.path.parents[1])] == [0o700] * 3
        assert [mode(path) for path in (entry, deep.secret)] == [0o600] * 2
    assert len(deep.secret.read_bytes()) == 32
    assert set(os.listdir(deep.secret.parent)) == {"cache.key"}


def test_the_secret_stays(shelf):
    """One for all caches of the user, made once."""
    shelf.store("this", CODE)
    secret = shelf.secret.read_bytes()
    shelf.cache = shelf.fresh()
    shelf.store("that", CODE)
    assert shelf.secret.read_bytes() == secret
    assert shelf.load("this") == CODE


def test_nothing_is_made_for_a_miss(shelf, told):
    """Looking for an entry leaves no directory and no key behind."""
    assert shelf.load("this") is None
    assert not shelf.path.exists()
    assert not shelf.secret.exists()
    assert told.warnings == []


def unused(shelf, told, *parts):
    """Neither loads nor stores, and says so once."""
    before = shelf.names() if shelf.path.is_dir() else None
    assert shelf.load("this") is None
    shelf.store("this", CODE)
    assert (shelf.names() if shelf.path.is_dir() else None) == before
    told.once(*parts)


@pytest.mark.parametrize("wrong", [0o755, 0o770, 0o701, 0o777, 0o1777])
def test_a_directory_open_to_others(shelf, told, wrong):
    """It is not used, and not changed: it may be there for something else."""
    shelf.store("this", CODE)
    shelf.path.chmod(wrong)
    unused(shelf, told, f"mode {wrong:o}", "700")
    assert mode(shelf.path) == wrong


@as_root
def test_a_directory_of_another_user(shelf, told):
    """It is not used."""
    shelf.store("this", CODE)
    os.chown(shelf.path, 12345, -1)
    unused(shelf, told, "owned by user 12345")


def test_a_directory_where_anybody_may_replace_it(shelf, told):
    """A parent that everybody may write is refused, at any height; a sticky one, as /tmp, is not."""
    shelf.store("this", CODE)
    above = shelf.path.parent
    above.chmod(0o1777)
    assert shelf.load("this") == CODE
    above.chmod(0o777)
    unused(shelf, told, str(above), "writable for everybody (mode 777)")


def test_a_link_to_a_directory(shelf, told):
    """Followed, and its target is what counts."""
    shelf.store("this", CODE)
    elsewhere = shelf.path.with_name("elsewhere")
    shelf.path.rename(elsewhere)
    shelf.path.symlink_to(elsewhere)
    assert shelf.load("this") == CODE
    elsewhere.chmod(0o755)
    unused(shelf, told, "mode 755")


def test_a_link_that_anybody_may_replace(shelf, told, tmp_path):
    """The directories above the link count as well as those above its target."""
    shelf.store("this", CODE)
    (tmp_path / "target").mkdir()
    (tmp_path / "links").mkdir()
    shelf.path.rename(tmp_path / "target" / "cache")
    (tmp_path / "links" / "cache").symlink_to(tmp_path / "target" / "cache")
    shelf.cache = DiskCache(Place(str(tmp_path / "links" / "cache"), str(shelf.secret)), 1 << 20)
    assert shelf.load("this") == CODE
    for folder in ("links", "target"):
        (tmp_path / folder).chmod(0o777)
        assert shelf.load("this") is None
        told.once(str(tmp_path / folder), "writable for everybody")
        (tmp_path / folder).chmod(0o755)
        told.forget()
        shelf.cache = DiskCache(Place(str(tmp_path / "links" / "cache"), str(shelf.secret)), 1 << 20)
    assert shelf.load("this") == CODE


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        os.mkfifo,
        lambda path: path.symlink_to("nowhere/at/all"),
        lambda path: path.symlink_to(path),
    ],
    ids=["file", "fifo", "dangling", "loop"],
)
def test_no_directory_at_all(shelf, told, make):
    """What stands in its place is left alone."""
    make(shelf.path)
    shelf.store("this", CODE)
    assert shelf.load("this") is None
    told.once(str(shelf.path))
    assert os.path.lexists(shelf.path)
    assert not shelf.path.is_dir()


def test_a_directory_that_cannot_be_made(tmp_path, told):
    """As below /proc, where there is nothing to make."""
    cache = diskplace.Place("/proc/nothing/here", str(tmp_path / "state" / "cache.key"))
    shelf = Shelf(tmp_path)
    shelf.cache = DiskCache(cache, 1 << 20)
    shelf.store("this", CODE)
    told.once("/proc/nothing")


def test_a_directory_that_vanishes(shelf, told):
    """It is a miss, and made again by the next store."""
    shelf.store("this", CODE).unlink()
    shelf.path.rmdir()
    assert shelf.load("this") is None
    shelf.store("this", CODE)
    assert shelf.load("this") == CODE
    assert told.warnings == []


SPOILED_SECRETS = {
    "lost": lambda path: path.unlink(),
    "replaced": lambda path: path.write_bytes(bytes(32)),
    "short": lambda path: os.truncate(path, 31),
    "long": lambda path: os.truncate(path, 33),
    "empty": lambda path: os.truncate(path, 0),
    "open to others": lambda path: path.chmod(0o640),
    "a link": lambda path: path.rename(path.with_name("other")) and path.symlink_to("other"),
    "a fifo": lambda path: path.unlink() or os.mkfifo(path, 0o600),
}
if ROOT:
    SPOILED_SECRETS["another user's"] = lambda path: os.chown(path, 12345, -1)


@pytest.mark.parametrize("how", SPOILED_SECRETS)
def test_a_secret_that_was_spoiled(shelf, told, how):
    """What was sealed with the old one is set aside; a sound one is there after the next store, which is loaded."""
    shelf.store("this", CODE)
    old = shelf.secret.read_bytes()
    SPOILED_SECRETS[how](shelf.secret)
    assert shelf.load("this") is None
    assert shelf.damaged("this").exists()
    told.once()
    shelf.store("this", CODE)
    assert shelf.load("this") == CODE
    assert (mode(shelf.secret), shelf.secret.stat().st_uid, len(shelf.secret.read_bytes())) == (0o600, os.geteuid(), 32)
    assert not shelf.secret.is_symlink()
    assert shelf.secret.read_bytes() != old
    assert set(os.listdir(shelf.secret.parent)) <= {"cache.key", "other"}


@pytest.mark.parametrize("how", ["directory", "open", "missing"])
def test_a_secret_that_cannot_be_had(shelf, told, how):
    """Then there is no disk cache: nothing is written, nothing is set aside, and it is told."""
    entry = shelf.store("this", CODE)
    if how == "directory":
        shelf.secret.unlink()
        shelf.secret.mkdir()
        shelf.store("that", CODE)
        assert not shelf.entry("that").exists()
        told.once("could not be written", "cache.key")
        return
    if how == "open":
        shelf.secret.parent.chmod(0o750)
    else:
        shelf.cache = DiskCache(Place(str(shelf.path), None), 1 << 20)
    assert shelf.load("this") is None
    shelf.store("that", CODE)
    assert entry.exists()
    assert not shelf.entry("that").exists()
    told.once("mode 750" if how == "open" else "XDG_STATE_HOME")


@pytest.mark.parametrize("where", ["cache", "cache/within", "cache/../cache"])
def test_a_secret_inside_the_cache(tmp_path, told, where):
    """Whoever may write there could bring one along: refused."""
    shelf = Shelf(tmp_path)
    shelf.path.mkdir(mode=0o700)
    shelf.cache = DiskCache(Place(str(shelf.path), str(tmp_path / where / "cache.key")), 1 << 20)
    shelf.store("this", CODE)
    assert shelf.names() == set()
    told.once("in the cache itself")


def test_secrets_that_were_left_half_made(shelf):
    """What a killed process left is swept when a key is made, once it is an hour old; younger ones stay."""
    shelf.secret.parent.mkdir(mode=0o700)
    old, young = (shelf.secret.with_name(f".cache.key.{n * 16}") for n in "ab")
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, ns=(0, young.stat().st_mtime_ns - diskplace.ABANDONED_NS - 10**9))
    shelf.store("this", CODE)
    assert set(os.listdir(shelf.secret.parent)) == {"cache.key", young.name}


def test_default_places(tmp_path, monkeypatch):
    """As the XDG base directory specification has it, relative ones ignored."""
    home = tmp_path / "home"
    home.mkdir()
    assert default_directory() == str(tmp_path / "xdg-cache" / "pdsandbox")
    assert default_secret() == str(tmp_path / "xdg-state" / "pdsandbox" / "cache.key")
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert default_directory() == str(home / ".cache" / "pdsandbox")
        assert default_secret() == str(home / ".local" / "state" / "pdsandbox" / "cache.key")


def test_no_home(tmp_path, monkeypatch):
    """A user without one, or with another's, has no default place, which is no error."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable)
    for home in ("/nonexistent", "relative", "/proc/1/nothing"):
        monkeypatch.setenv("HOME", home)
        assert (default_directory(), default_secret()) == (None, None)
    if ROOT:
        (tmp_path / "home").mkdir()
        os.chown(tmp_path / "home", 12345, -1)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert (default_directory(), default_secret()) == (None, None)


def test_unusable_is_a_sentence(shelf):
    """What `pdsandbox cache` shows."""
    shelf.path.mkdir(mode=0o755)
    with pytest.raises(Unusable, match=r"is open to others \(mode 755\); it must have mode 700"):
        shelf.place.open()
