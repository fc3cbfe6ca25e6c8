"""What goes when the cache is full: abandoned files, damaged ones, then the least recently used; nothing else."""

from __future__ import annotations

import os
import random

import pytest
from caching import Shelf, key
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox.supervisor import diskfiles
from pdsandbox.supervisor.diskfiles import File, Kind, name_of, superfluous
from pdsandbox.supervisor.diskplace import ABANDONED_NS

CODE = b"native code" * 100
SECOND = 10**9
HOUR = 3600 * SECOND


def aged(path, seconds):
    """The file was used so long before now; negative: after."""
    now = os.stat(path).st_mtime_ns
    os.utime(path, ns=(now, now - int(seconds * SECOND)))


@pytest.fixture
def room(tmp_path):
    """A cache with room for three."""
    probe = Shelf(tmp_path / "probe")
    size = probe.store("any", CODE).stat().st_size
    return Shelf(tmp_path, 3 * size)


def test_least_recently_used_goes_first(room):
    """Loading is using; storing one more than there is room for throws out the one that was used longest ago."""
    for number in (1, 2, 3):
        aged(room.store(number, CODE), 100 - number)
    assert room.load(1) == CODE
    room.store(4, CODE)
    assert room.names() == {room.entry(number).name for number in (1, 3, 4)}
    assert [room.load(number) for number in (1, 2, 3, 4)] == [CODE, None, CODE, CODE]


def test_what_is_larger_than_the_cache(room):
    """It is not stored, and throws nobody out: just under is, just over is not."""
    room.store(1, CODE)
    overhead = room.entry(1).stat().st_size - len(CODE)
    room.store("larger", b"x" * (room.most_bytes - overhead + 1))
    assert room.names() == {room.entry(1).name}
    room.store("as large", b"x" * (room.most_bytes - overhead))
    assert room.names() == {room.entry("as large").name}


def test_nothing_fits_into_nothing(tmp_path):
    """`cache_bytes=0` makes no directory."""
    shelf = Shelf(tmp_path, 0)
    shelf.store(1, CODE)
    assert not shelf.path.exists()


def test_a_larger_cache_was_here(room):
    """Each store cuts the directory down to what this supervisor allows, whoever filled it."""
    wide = Shelf(room.path.parent, 100 * room.most_bytes)
    for number in range(20):
        aged(wide.store(number, CODE), 100 - number)
    assert len(room.names()) == 20
    room.store("last", CODE)
    assert room.names() == {room.entry(number).name for number in (18, 19, "last")}


def test_damaged_ones_go_first(room):
    """However young they are."""
    aged(room.store(1, CODE), 50)
    os.truncate(room.store(2, CODE), 100)
    assert room.load(2) is None
    room.store(3, CODE)
    assert room.damaged(2).exists()
    room.store(4, CODE)
    room.store(5, CODE)
    assert room.names() == {room.entry(number).name for number in (3, 4, 5)} or room.entry(1).exists()
    assert not room.damaged(2).exists()


def test_a_time_to_come_keeps_nothing(room):
    """An entry from a clock that was a day ahead is the oldest, not the youngest."""
    aged(room.store(1, CODE), 50)
    aged(room.store(2, CODE), -24 * 3600)
    aged(room.store(3, CODE), 40)
    room.store(4, CODE)
    assert room.names() == {room.entry(number).name for number in (1, 3, 4)}


def test_only_so_many_files(room, monkeypatch):
    """However small they are."""
    monkeypatch.setattr(diskfiles, "MAX_FILES", 2)
    for number in range(4):
        aged(room.store(number, b"x"), 100 - number)
    room.store("last", b"x")
    assert room.names() == {room.entry(number).name for number in (3, "last")}


def test_what_was_left_half_written(room):
    """Swept when it is an hour old; a younger one may be another process's, which writes."""
    room.store(1, CODE)
    old, young, ahead = (room.path / name_of(key(1), Kind.WRITING, another=True) for _ in range(3))
    for path in (old, young, ahead):
        path.write_bytes(b"half")
    aged(old, 3600 + 60)
    aged(young, 3600 - 60)
    aged(ahead, -3600 - 60)
    room.store(2, CODE)
    assert room.names() == {room.entry(1).name, room.entry(2).name, young.name}


def test_what_is_not_ours(room):
    """Neither counted nor touched, however full it is; names must fit exactly."""
    room.path.mkdir(mode=0o700)
    digits = key(1).hex()
    names = ["notes.txt", "x.code", f"{digits}.code.bak", f"{digits.upper()}.code", f"{digits}.0.writing", digits]
    for name in names:
        (room.path / name).write_bytes(b"x" * 2 * room.most_bytes)
        aged(room.path / name, 10 * 24 * 3600)
    (room.path / "directory").mkdir()
    for number in range(5):
        room.store(number, CODE)
    assert room.names() >= {*names, "directory"}
    assert len(room.names()) == len(names) + 1 + 3


def test_what_cannot_be_removed(room, told):
    """A full directory in the place of an entry stays, and the rest goes on."""
    stuck = room.path / name_of(key("stuck"), Kind.DAMAGED)
    room.store(0, CODE)
    stuck.mkdir()
    (stuck / "file").write_bytes(b"x")
    for number in range(1, 6):
        room.store(number, CODE)
        assert room.load(number) == CODE
    assert stuck.is_dir()
    assert told.warnings == []


files = st.builds(
    lambda number, kind, bytes_, used: File(f"{number}.{kind.value}", kind, bytes_, used),
    st.integers(0, 10**6),
    st.sampled_from(Kind),
    st.integers(0, 1000),
    st.integers(0, 20).map(lambda tenths: tenths * HOUR // 5),
)


@given(files=st.lists(files, max_size=40, unique_by=lambda file: file.name), most=st.integers(0, 10_000))
def test_what_is_superfluous(files, most):
    """Enough goes and no more than that, in the right order; the order of the listing does not matter."""
    now = 2 * HOUR
    when = {file: file.used if file.used <= now + ABANDONED_NS else 0 for file in files}  # a time to come is none
    gone = superfluous(files, most, now)
    random.Random(0).shuffle(shuffled := list(files))
    if len({*when.values()}) == len(files):  # else two may be equally old
        assert {f.name for f in superfluous(shuffled, most, now)} == {f.name for f in gone}
    writing = {file for file in files if file.kind is Kind.WRITING}
    assert {f for f in gone if f.kind is Kind.WRITING} == {f for f in writing if abs(now - f.used) > ABANDONED_NS}
    rest = [file for file in files if file.kind is not Kind.WRITING]
    removed = [file for file in gone if file.kind is not Kind.WRITING]
    kept = [file for file in rest if file not in removed]
    assert sum(file.size for file in kept) <= most
    if removed:  # the last one to go had to
        assert sum(file.size for file in [*kept, removed[-1]]) > most
    if any(file.kind is Kind.CODE for file in removed):
        assert all(file.kind is Kind.CODE for file in kept)
    used = [when[file] for file in removed if file.kind is Kind.CODE]
    assert used == sorted(used)
