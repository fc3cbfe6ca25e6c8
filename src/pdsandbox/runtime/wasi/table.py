"""The guest's descriptors, by number. Closing one closes the descriptor of ours behind it, if it is ours to close.

Numbers are given out as wasmtime does: the largest that was closed, else the next. Does no I/O but closing.
"""

from __future__ import annotations

import os
from typing import Final

from ...streams import Input, Output
from . import abi
from .memory import MAX_PATH, Errno
from .quota import Quota

__all__ = ["Descriptor", "Directory", "Entry", "File", "Grant", "Stdin", "Stdout", "Table"]

# A worker has few descriptors to give; who needs more at once is a bomb, or a database.
MAX_OPEN: Final = 1000


class Descriptor:
    """What a number stands for."""

    __slots__ = ()

    def close(self) -> None:
        """Give back what is ours."""


class Stdin(Descriptor):
    """Standard input."""

    __slots__ = ("stream",)

    def __init__(self, stream: Input) -> None:
        self.stream = stream


class Stdout(Descriptor):
    """Standard output or error."""

    __slots__ = ("stream",)

    def __init__(self, stream: Output) -> None:
        self.stream = stream


class Grant:
    """What a granted directory allows, for all that is opened beneath it. `number`: which of them it is."""

    __slots__ = ("number", "quota", "writable")

    def __init__(self, number: int, *, writable: bool, quota: Quota | None) -> None:
        self.number = number
        self.writable = writable
        self.quota = quota

    def check_writable(self) -> None:
        """`Errno`, PERM, unless this grant is for writing."""
        if not self.writable:
            raise Errno(abi.PERM)


#: (cookie of the next, inode, type, name) of a directory's entry.
Entry = tuple[int, int, int, bytes]


class Directory(Descriptor):
    """An open directory. `name`: the guest path, if it was there from the start. `path`: where it was found beneath its
    grant, None where that is too long. `listing`: what `fd_readdir` last began to give."""

    __slots__ = ("fd", "grant", "listing", "name", "path", "reads", "writes")

    def __init__(
        self,
        fd: int,
        grant: Grant,
        *,
        name: bytes | None = None,
        path: bytes | None = b"",
        reads: bool = True,
        writes: bool = False,
    ) -> None:
        self.path = path
        self.fd = fd
        self.grant = grant
        self.name = name
        self.reads = reads
        self.writes = writes
        self.listing: list[Entry] | None = None

    def beneath(self, path: bytes) -> bytes | None:
        """Where what has this path here is beneath the grant; None where no call would take that."""
        if self.path is None or len(self.path) + 1 + len(path) > MAX_PATH:
            return None
        return self.path + b"/" + path if self.path else path

    def close(self) -> None:
        os.close(self.fd)


class File(Descriptor):
    """An open file. The position is ours: the kernel's is never used.

    orphan: its last name has gone while it was open, and its size is still to be given back to the quota.
    """

    __slots__ = ("fd", "flags", "grant", "identity", "orphan", "position", "reads", "writes")

    def __init__(
        self, fd: int, grant: Grant, identity: tuple[int, int], *, reads: bool, writes: bool, flags: int
    ) -> None:
        self.fd = fd
        self.grant = grant
        self.identity = identity
        self.reads = reads
        self.writes = writes
        self.flags = flags
        self.position = 0
        self.orphan = False

    def close(self) -> None:
        try:
            if self.orphan and self.grant.quota is not None:
                self.grant.quota.grow(os.fstat(self.fd).st_size, 0)
        finally:
            os.close(self.fd)


class Table:
    """See the module's text. `Errno`, BADF, for a number that stands for nothing, or for something else."""

    def __init__(self) -> None:
        self._used: dict[int, Descriptor] = {}
        self._free: set[int] = set()

    def any(self, number: int) -> Descriptor:
        """Whatever it is."""
        found = self._used.get(number)
        if found is None:
            raise Errno(abi.BADF)
        return found

    def file(self, number: int) -> File:
        """A file."""
        found = self._used.get(number)
        if not isinstance(found, File):
            raise Errno(abi.BADF)
        return found

    def directory(self, number: int) -> Directory:
        """A directory."""
        found = self._used.get(number)
        if not isinstance(found, Directory):
            raise Errno(abi.BADF)
        return found

    def seekable(self, number: int) -> File:
        """A file; SPIPE for a standard stream."""
        if isinstance(self._used.get(number), Stdin | Stdout):
            raise Errno(abi.SPIPE)
        return self.file(number)

    def files(self) -> list[File]:
        """All open files."""
        return [found for found in self._used.values() if isinstance(found, File)]

    def check_room(self) -> None:
        """`Errno`, MFILE, when no more may be opened: to be asked before opening."""
        if len(self._used) >= MAX_OPEN:
            raise Errno(abi.MFILE)

    def add(self, descriptor: Descriptor) -> int:
        """Its number."""
        if self._free:
            number = max(self._free)
            self._free.remove(number)
        else:
            number = max(self._used, default=-1) + 1
        self._used[number] = descriptor
        return number

    def close(self, number: int) -> None:
        """The number is free, whatever comes of closing."""
        found = self.any(number)
        del self._used[number]
        self._free.add(number)
        if isinstance(found, File) and found.orphan:
            for other in self.files():
                if other.identity == found.identity:  # as long as one is open, nothing has gone
                    found.orphan, other.orphan = False, True
                    break
        found.close()

    def renumber(self, number: int, to: int) -> None:
        """`to`, which must be open, becomes what `number` was, and `number` is free."""
        moved = self.any(number)
        self.any(to)
        if number != to:
            self.close(to)
            del self._used[number]
            self._free.add(number)
            self._free.discard(to)
            self._used[to] = moved

    def close_all(self) -> None:
        """When the guest has gone."""
        while self._used:
            self._used.popitem()[1].close()
