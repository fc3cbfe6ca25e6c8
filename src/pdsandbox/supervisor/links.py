"""Times of symbolic links in directories that a guest may write to: the one thing there that its worker cannot set.

A link's own times can only be set by a path, and a filter cannot tell where a path leads: one that let a worker name
any would let it set the times of every file of the same user. So it is done here, on a link that was found beneath
the directory, is the one that the worker holds, and belongs to the directory's owner. For the holder of the turn.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from ..platform import files
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..wasi import Dir

__all__ = ["Links"]


class _Top(NamedTuple):
    """A granted directory. It is not held open: an instance would keep as many descriptors as it has directories."""

    path: str
    identity: tuple[int, int]
    writable: bool


class Links:
    """Those of one guest's directories; `fds`: these, open for now."""

    def __init__(self, dirs: Sequence[Dir], fds: Sequence[int]) -> None:
        self._tops = [
            _Top(os.path.abspath(item.host_path), _identity(os.fstat(fd)), item.mode == "rw")
            for item, fd in zip(dirs, fds, strict=True)
        ]

    def set_times(self, number: int, data: bytes) -> None:
        """What LINK_TIMES says. OSError; ProtocolError for what no honest worker says."""
        if number >= len(self._tops) or not self._tops[number].writable or len(data) <= m.LINK_LAYOUT.size:
            raise ProtocolError("times of a link where nothing may be changed")
        device, inode, *times = m.LINK_LAYOUT.unpack_from(data)
        path, top = data[m.LINK_LAYOUT.size :], self._tops[number]
        if 0 in path or max(times[0], times[2]) >= 1 << 63:
            raise ProtocolError("times of a link that makes no sense")
        within = os.open(top.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            granted = os.fstat(within)
            if _identity(granted) != top.identity:
                raise _failed(errno.ESTALE)  # another one has its name now
            self._set(within, path, (device, inode), granted.st_uid, times)
        finally:
            os.close(within)

    def _set(self, within: int, path: bytes, wanted: tuple[int, int], owner: int, times: list[int]) -> None:
        link = files.open_beneath(within, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            found = os.fstat(link)
            if not stat.S_ISLNK(found.st_mode) or _identity(found) != wanted or found.st_uid != owner:
                raise _failed(errno.EPERM)
            files.set_times_of_path(link, (times[0], times[1]), (times[2], times[3]))
        finally:
            os.close(link)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))
