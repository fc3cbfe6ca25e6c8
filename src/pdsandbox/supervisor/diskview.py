"""What is in a disk cache, for people: lists and checks its files, and clears it. Loads nothing."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass

from . import diskfiles
from .diskfiles import File, Kind
from .diskformat import HEAD_BYTES, MAGIC, Damaged, Head, Sealer, Types
from .diskplace import Place, open_regular, remove

_PIECE = 1 << 20


class State(enum.Enum):
    """What a file turned out to be."""

    GOOD = "good"
    DAMAGED = "damaged"  #: would be set aside, and compiled anew
    SET_ASIDE = "set aside"  #: damaged, and never looked at again
    OTHER_FORMAT = "other format"  #: of another version of pdsandbox
    UNFINISHED = "unfinished"  #: being written, or left by a process that ended

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Seen:
    """One file. `versions` and `source` (SHA-256 of the module) of a good one only; `why` it is damaged."""

    file: File
    state: State
    versions: str = ""
    source: bytes = b""
    why: str = ""


def survey(place: Place) -> list[Seen]:
    """All files of ours, the last used first. Unusable; OSError, FileNotFoundError where there is no cache yet."""
    directory = place.open()
    try:
        secret = place.secret()
        files = sorted(diskfiles.listed(directory), key=lambda file: (-file.used, file.name))
        return [_see(directory, file, secret) for file in files]
    finally:
        os.close(directory)


def _see(directory: int, file: File, secret: bytes | None) -> Seen:
    if file.kind is Kind.WRITING:
        return Seen(file, State.UNFINISHED)
    if file.kind is Kind.DAMAGED:
        return Seen(file, State.SET_ASIDE)
    try:
        fd = open_regular(directory, file.name)
    except (OSError, Damaged) as exc:
        return Seen(file, State.DAMAGED, why=str(exc))
    try:
        start = os.pread(fd, len(MAGIC), 0)
        if start[:-1] == MAGIC[:-1] and start != MAGIC and len(start) == len(MAGIC):
            return Seen(file, State.OTHER_FORMAT)
        if secret is None:
            raise Damaged("its key is lost")
        head, types = _check(fd, file.key, secret)
    except (OSError, Damaged) as exc:
        return Seen(file, State.DAMAGED, why=str(exc))
    finally:
        os.close(fd)
    return Seen(file, State.GOOD, types.versions, head.source)


def _check(fd: int, key: bytes, secret: bytes) -> tuple[Head, Types]:
    size = os.fstat(fd).st_size
    head = Head.unpack(os.pread(fd, HEAD_BYTES, 0), size, size)
    if head.key != key:
        raise Damaged("an entry for something else")
    sealer = Sealer(secret, head)
    at = HEAD_BYTES + head.metadata_bytes
    types = os.pread(fd, head.metadata_bytes, HEAD_BYTES)
    sealer.update(types)
    while at < size and (piece := os.pread(fd, min(_PIECE, size - at), at)):
        sealer.update(piece)
        at += len(piece)
    sealer.check(head.tag)
    return head, Types.unpack(types)


@dataclass(frozen=True, slots=True)
class Cleared:
    """How many files went, their bytes, and why others did not."""

    files: int
    bytes: int
    failures: tuple[str, ...]


def clear(place: Place) -> Cleared:
    """Remove all files of ours; those who use the cache compile anew. Unusable; OSError, FileNotFoundError as above."""
    directory = place.open()
    files, bytes_, failures = 0, 0, []
    try:
        for file in diskfiles.listed(directory):
            try:
                if remove(directory, file.name):
                    files += 1
                    bytes_ += file.size
            except OSError as exc:
                failures.append(f"{file.name}: {exc.strerror}")
    finally:
        os.close(directory)
    return Cleared(files, bytes_, tuple(failures))
