"""Directories that a worker was granted, before it locks itself down: whose user and group it must be to use them.

Looks at the directories themselves, never at what is in them, and applies nothing. Knows of no path: they come open.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from ..platform.lockdown.privileges import NOBODY

__all__ = ["Granted"]

# As many as a guest may have open at once (`runtime.wasi.table.MAX_OPEN`), and some that are open while a path is
#: walked.
_DESCRIPTORS: Final = 1000 + 24

_READ: Final = os.R_OK | os.X_OK
_WRITE: Final = _READ | os.W_OK


class Granted:
    """`dirs`: (descriptor, writable) of each. OSError for what is no open directory."""

    def __init__(self, dirs: Sequence[tuple[int, bool]]) -> None:
        self.dirs = tuple(dirs)
        self.writable = any(writable for _, writable in self.dirs)
        self._stats = [os.fstat(fd) for fd, _ in self.dirs]
        if not all(stat.S_ISDIR(found.st_mode) for found in self._stats):
            raise NotADirectoryError(errno.ENOTDIR, "what was granted is no directory")
        self._could = [_can(granted) for granted in self.dirs]
        # Those that are written to count first: the user of one that is only read may often be anybody.
        chosen = [n for n, (_, writable) in enumerate(self.dirs) if writable or not self.writable]
        self._owner = _one({self._stats[n].st_uid for n in chosen})
        self._group = _one({self._stats[n].st_gid for n in chosen if self.writable or self._needs_group(n)})

    def limits(self, bare: Mapping[int, int]) -> dict[int, int]:
        """The resource limits of a worker without directories, made fit.

        Files may grow where one is writable: this limit counts from a file's beginning, whatever it held before, so it
        is no quota.
        """
        limits = dict(bare)
        limits[resource.RLIMIT_NOFILE] += len(self.dirs) + _DESCRIPTORS
        if self.writable:
            del limits[resource.RLIMIT_FSIZE]
        return limits

    def identity(self, *, held: bool) -> tuple[int, int]:
        """The worker's user and group, where it changes them.

        The one that owns the directories which may be written, or else of those that may be read, and their group if
        something is made there or it gives access; `nobody` where they are several. Only a worker that is `held` by
        Landlock and the filter may be anybody else's user: without them it could reach all that this user has.
        """
        if not held:
            return NOBODY, NOBODY
        return self._owner, self._group

    def _needs_group(self, n: int) -> bool:
        """Whether the group may do what is wanted with directory `n`, and others than it and the owner may not."""
        found, want = self._stats[n], self._wanted(n)
        return found.st_uid != self._owner and found.st_mode >> 3 & want == want != found.st_mode & want

    def _wanted(self, n: int) -> int:
        return _WRITE if self.dirs[n][1] else _READ

    def check_usable(self) -> None:
        """OSError, EACCES, when this process may not use one of them as it is wanted, and could when this was made:
        it has another user now, or no capabilities."""
        for n, (before, now) in enumerate(zip(self._could, map(_can, self.dirs), strict=True)):
            if before & ~now:
                found, writes = self._stats[n], now & _READ == before & _READ
                raise OSError(
                    errno.EACCES,
                    f"granted directory {n + 1} of {len(self.dirs)} belongs to user {found.st_uid}, group"
                    f" {found.st_gid} (mode {found.st_mode & 0o7777:04o}), and cannot be"
                    f" {'written' if writes else 'read'} by the worker, which is user {os.getuid()}, group"
                    f" {os.getgid()}, without capabilities",
                )


def _can(granted: tuple[int, bool]) -> int:
    """What of the access that is wanted to a directory this process has."""
    fd, writable = granted
    wanted = (os.R_OK, os.X_OK, os.W_OK) if writable else (os.R_OK, os.X_OK)
    return sum(bit for bit in wanted if os.access(".", bit, dir_fd=fd))


def _one(found: set[int]) -> int:
    return found.pop() if len(found) == 1 else NOBODY
