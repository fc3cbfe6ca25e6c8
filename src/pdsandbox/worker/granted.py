"""Directories that a worker was granted, before it locks itself down: whose user and group it must be to use them.

Looks at the directories themselves, never at what is in them, and applies nothing. Knows of no path: they come open.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterable, Sequence
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
        # Those that are written to count first: the user of one that is only read may often be anybody.
        chosen = [n for n, (_, writable) in enumerate(self.dirs) if writable or not self.writable]
        self._owner = _one({self._stats[n].st_uid for n in chosen})
        self._group = _one({self._stats[n].st_gid for n in chosen if self.writable or self._needs_group(n)})

    def limits(self, bare: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """The resource limits of a worker without directories (kind, most), made fit.

        Files may grow where one is writable: this limit counts from a file's beginning, whatever it held before, so it
        is no quota.
        """
        limits = dict(bare)
        limits[resource.RLIMIT_NOFILE] += len(self.dirs) + _DESCRIPTORS
        if self.writable:
            del limits[resource.RLIMIT_FSIZE]
        return tuple(limits.items())

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
        """OSError, EACCES, when this process, which is another user than the service's, may not use one of them."""
        for n, (fd, writable) in enumerate(self.dirs):
            want = self._wanted(n)
            # Not EROFS: neither could the service write there, and the guest will be told.
            if not os.access(".", want & ~os.W_OK, dir_fd=fd) or (writable and _refused(fd, want)):
                found = self._stats[n]
                raise OSError(
                    errno.EACCES,
                    f"granted directory {n + 1} of {len(self.dirs)} belongs to user {found.st_uid}, group"
                    f" {found.st_gid} (mode {found.st_mode & 0o7777:04o}), and cannot be"
                    f" {'written' if writable else 'read'} by the worker, which is user {os.getuid()}, group"
                    f" {os.getgid()}",
                )


def _refused(fd: int, want: int) -> bool:
    return not os.access(".", want, dir_fd=fd) and not os.fstatvfs(fd).f_flag & os.ST_RDONLY


def _one(found: set[int]) -> int:
    return found.pop() if len(found) == 1 else NOBODY
