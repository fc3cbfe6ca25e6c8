"""What lies in a file: what was written comes back, and nothing else does, wherever it was changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from caching import EXPORTS, IMPORTS, code_of, compiled, key
from hypothesis import given
from hypothesis import strategies as st

from pdsandbox.externs import ExportType, FuncType, GlobalType, ImportType, MemoryType, TableType, TagType
from pdsandbox.platform import os_
from pdsandbox.supervisor.disk import read_entry, write_entry
from pdsandbox.supervisor.diskformat import HEAD_BYTES, MAGIC, Damaged, Head, Types

SECRET = bytes(range(32))
KEY = key("this")
MOST = 1 << 20
TYPES = Types("pdsandbox 1, wasmtime 2", IMPORTS, EXPORTS)

value_types = st.lists(st.sampled_from(["i32", "i64", "f32", "f64", "v128", "externref"]), max_size=5).map(tuple)
words = st.integers(0, 2**64 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
externs = st.one_of(
    st.builds(FuncType, value_types, value_types),
    st.builds(MemoryType, words, st.none() | words, st.booleans(), st.booleans(), st.just(65536)),
    st.builds(TableType, st.just("funcref"), words, st.none() | words),
    st.builds(GlobalType, st.sampled_from(["i32", "v128"]), st.booleans()),
    st.builds(TagType, value_types),
)
imports = st.lists(st.builds(ImportType, names, names, externs), max_size=5).map(tuple)
exports = st.lists(st.builds(ExportType, names, externs), max_size=5).map(tuple)


def entry(tmp: str, code: bytes, types: Types = TYPES) -> bytes:
    """The bytes of an entry's file."""
    module, packed = compiled(code), types.pack()
    directory = os.open(tmp, os.O_RDONLY)
    artifact = module.artifact.duplicate()
    try:
        write_entry(directory, Head(KEY, bytes(32), len(packed), len(code)), packed, artifact.fd, SECRET)
        with open(f"{tmp}/{KEY.hex()}.code", "rb") as file:
            return file.read()
    finally:
        artifact.close()
        module.artifact.close()
        os.close(directory)


def read(raw: bytes, secret: bytes = SECRET, wanted: bytes = KEY, most: int = MOST) -> tuple[bytes, Types]:
    """What is loaded from a file with these bytes."""
    fd = os_.memfd("file")
    try:
        os.write(fd, raw)
        os.lseek(fd, 0, os.SEEK_SET)
        found = read_entry(fd, wanted, secret, most, lambda action: action())
    finally:
        os.close(fd)
    try:
        return code_of(found), Types(TYPES.versions, found.imports, found.exports)
    finally:
        found.artifact.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    return entry(str(tmp_path_factory.mktemp("entry")), b"native code")


@given(code=st.binary(min_size=1, max_size=5000), imports=imports, exports=exports)
def test_what_was_written_comes_back(tmp_path_factory, code, imports, exports):
    """Any code and any types."""
    types = Types(TYPES.versions, imports, exports)
    assert read(entry(str(tmp_path_factory.mktemp("entry")), code, types)) == (code, types)


def test_every_flipped_bit_is_found(good):
    """Wherever it is, head, types or code."""
    for at in range(len(good)):
        for bit in range(8):
            changed = bytearray(good)
            changed[at] ^= 1 << bit
            with pytest.raises(Damaged):
                read(bytes(changed))


def test_every_cut_is_found(good):
    """Down to an empty file; and so is anything behind its end."""
    for length in range(len(good)):
        with pytest.raises(Damaged):
            read(good[:length])
    with pytest.raises(Damaged):
        read(good + b"\0")


@given(data=st.data())
def test_no_other_bytes_are_an_entry(good, data):
    """Splices of the entry with anything else are damaged, and nothing but that."""
    start, stop = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(good))])))
    changed = good[:start] + data.draw(st.binary(max_size=300)) + good[stop:]
    if changed != good:
        with pytest.raises(Damaged):
            read(changed)


@given(raw=st.binary(max_size=400))
def test_types_are_decoded_or_damaged(raw):
    """Also behind a right tag, which a bug or another format could have made: nothing but Damaged is raised."""
    try:
        Types.unpack(raw)
    except Damaged:
        pass


def test_another_secret_and_another_key(good):
    """An entry is for one user and one key: renamed, or brought along from elsewhere, it is none."""
    assert read(good)[0] == b"native code"
    with pytest.raises(Damaged, match="tag"):
        read(good, secret=bytes(32))
    with pytest.raises(Damaged, match="something else"):
        read(good, wanted=key("that"))
    relabelled = Head.unpack(good[:HEAD_BYTES], len(good), MOST)
    relabelled = Head(
        key("that"), relabelled.source, relabelled.metadata_bytes, relabelled.artifact_bytes, relabelled.tag
    )
    with pytest.raises(Damaged, match="tag"):
        read(relabelled.pack() + good[HEAD_BYTES:], wanted=key("that"))


def test_no_more_code_than_a_compiler_could_have_made(good):
    """The bound is checked before anything is read: up to it is fine, one more is not."""
    assert read(good, most=len(b"native code"))[0] == b"native code"
    with pytest.raises(Damaged, match="lengths"):
        read(good, most=len(b"native code") - 1)


@pytest.mark.parametrize(
    ("metadata_bytes", "artifact_bytes"), [(0, 0), (2**32 - 1, 1), (0, 2**64 - 1), (2**32 - 1, 2**64 - 1)]
)
def test_lengths_that_cannot_be(metadata_bytes, artifact_bytes):
    """Refused from the head alone."""
    raw = Head(KEY, bytes(32), metadata_bytes, artifact_bytes).pack()
    assert raw.startswith(MAGIC)
    with pytest.raises(Damaged, match="lengths"):
        Head.unpack(raw, HEAD_BYTES + metadata_bytes + artifact_bytes, MOST)
