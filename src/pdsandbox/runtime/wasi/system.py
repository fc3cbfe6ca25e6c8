"""One guest's WASI: what its calls work on, made of its grants.

Its descriptors are handed over open: this module neither opens a host path nor knows who did.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...externs import ImportType
from ...platform import files
from ...streams import Standard
from ..guest import Guest, RawFunction
from .beneath import Opener, opener
from .clocks import clocks_of
from .entropy import entropy_of
from .memory import Memory
from .quota import Quota
from .table import Directory, Grant, Stdin, Stdout, Table

__all__ = ["Granted", "Preopen", "System"]

_U64 = 2**64 - 1


class Preopen(NamedTuple):
    """A directory, open: its name in the guest, its descriptor here, and what `wasi.Dir` says about it."""

    name: bytes
    fd: int
    writable: bool
    max_bytes: int | None


class Granted(NamedTuple):
    """What a `Wasi` grants, but for streams and directories, as the guest gets it.

    args, env  NUL is not in them, and not at their end
    clock      (start, step) of the guest's own, in nanoseconds; None: the real one
    seed       of its random numbers; None: the kernel's
    """

    args: Sequence[bytes]
    env: Sequence[bytes]
    clock: tuple[int, int] | None
    seed: int | None


#: Sets the times of a symbolic link: (number of the directory, path beneath it, the link as it was found, times as
#: utimensat(2) has them). OSError.
SetLinkTimes = Callable[[int, bytes, os.stat_result, tuple[int, int], tuple[int, int]], None]


class System:
    """What the calls of one guest work on. `open_at` opens a path beneath a directory."""

    def __init__(
        self,
        guest: Guest,
        granted: Granted,
        standard: Standard,
        dirs: Sequence[Preopen],
        set_link_times: SetLinkTimes | None = None,
    ) -> None:
        """The descriptors of `dirs` are ours from now on. `set_link_times`: for where this process may not."""
        self._set_link_times = set_link_times
        self.memory = Memory(guest)
        self.args, self.env = granted.args, granted.env
        self.clocks = clocks_of(granted.clock)
        self.entropy = entropy_of(granted.seed)
        self.standard = standard
        self.table = table = Table()
        self._secret = int.from_bytes(self.entropy(8), "little")
        for descriptor in (Stdin(standard.stdin), Stdout(standard.stdout), Stdout(standard.stderr)):
            table.add(descriptor)
        for number, item in enumerate(dirs):
            quota = None if item.max_bytes is None else Quota(item.max_bytes)
            table.add(Directory(item.fd, Grant(number, writable=item.writable, quota=quota), name=item.name))
        self.open_at: Opener = opener(dirs[0].fd) if dirs else _no_directory

    def inode(self, device: int, inode: int) -> int:
        """A number for this file that is another in each instance: the host's own would tell about the host."""
        return _mixed(inode ^ _mixed(device ^ self._secret))

    def set_times_of_path(
        self, fd: int, within: Directory, path: bytes, atime: tuple[int, int], mtime: tuple[int, int]
    ) -> None:
        """Set the times of what `fd` holds as O_PATH only, and was found by that path."""
        try:
            files.set_times_of_path(fd, atime, mtime)
        except PermissionError:
            found, beneath = os.fstat(fd), within.beneath(path)
            if self._set_link_times is None or beneath is None or not stat.S_ISLNK(found.st_mode):
                raise
            self._set_link_times(within.grant.number, beneath, found, atime, mtime)

    def bind(self, wanted: ImportType) -> RawFunction | None:
        """What answers an import, if it is of WASI preview 1."""
        from .link import bind  # it knows all calls, and they know this class

        return bind(self, wanted)

    def close(self) -> None:
        """When the guest has gone."""
        self.table.close_all()

    def __del__(self) -> None:
        if hasattr(self, "table"):
            self.close()


def _mixed(number: int) -> int:
    """A one-to-one mapping of 64 bits (the finaliser of SplitMix64): within one device no two files become one."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _U64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _U64
    return number ^ number >> 31


def _no_directory(dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
    raise OSError(9, os.strerror(9))
