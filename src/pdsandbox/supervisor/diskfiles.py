"""The files of a disk cache: their names, and which of them go when they are too many. Decides; removes nothing.

    KEY.code                 an entry, KEY in 64 hexadecimal digits
    KEY.damaged              one that failed its check, out of the way (KEY.RANDOM.damaged, when that is taken)
    KEY.RANDOM.writing       one that is being written, or was when its process ended

Whatever else lies in the directory is not ours: it is neither counted nor touched.
"""

from __future__ import annotations

import enum
import os
import re
import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

from .diskplace import ABANDONED_NS

#: Each store looks at all of them: 1,000 take 5 ms.
MAX_FILES: Final = 1000
_NAME: Final = re.compile(r"[0-9a-f]{64}(?:\.[0-9a-f]{16})?\.(code|damaged|writing)")


class Kind(enum.Enum):
    """What a file of ours is, by its name."""

    CODE = "code"
    DAMAGED = "damaged"
    WRITING = "writing"


_KINDS: Final = {kind.value: kind for kind in Kind}


class File(NamedTuple):
    """One file of ours. `used`: when it was last written or read, nanoseconds of the file system's clock."""

    name: str
    kind: Kind
    size: int
    used: int

    @property
    def key(self) -> bytes:
        """The key in its name."""
        return bytes.fromhex(self.name[:64])


def name_of(key: bytes, kind: Kind, *, another: bool = False) -> str:
    """The file's name; `another`: one that nobody else uses."""
    middle = f".{secrets.token_hex(8)}" if another else ""
    return f"{key.hex()}{middle}.{kind.value}"


def listed(directory: int) -> list[File]:
    """The files of ours in the open directory. OSError."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(File(entry.name, _KINDS[match[1]], status.st_size, status.st_mtime_ns))
    return found


def superfluous(files: Iterable[File], most_bytes: int, now: int) -> list[File]:
    """Those to remove: what was abandoned, then damaged ones, then entries, the least recently used first.

    A time to come is no time: a clock that was wrong for a day must not keep a file for ever.
    """
    gone, kept = [], []
    for file in files:
        if file.kind is not Kind.WRITING:
            kept.append(file)
        elif abs(now - file.used) > ABANDONED_NS:
            gone.append(file)
    kept.sort(key=lambda file: (file.kind is Kind.CODE, file.used if file.used <= now + ABANDONED_NS else 0))
    total = sum(file.size for file in kept)
    for count, file in zip(range(len(kept), 0, -1), kept, strict=True):
        if total <= most_bytes and count <= MAX_FILES:
            break
        gone.append(file)
        total -= file.size
    return gone
