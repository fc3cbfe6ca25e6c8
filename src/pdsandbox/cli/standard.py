"""The three standard descriptors of this process: open, whatever somebody has closed. Imports nothing but `os`."""

from __future__ import annotations

import os

__all__ = ["occupy_closed"]


def occupy_closed() -> None:
    """Give each standard descriptor that is closed to something that fails in the same way (EBADF), so that no file
    which is opened later gets its number, and with it what a guest writes."""
    for fd, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, mode)  # the lowest free number: this one, since those below are open
            if null != fd:
                os.close(null)
                raise AssertionError(f"descriptor {fd} was closed, and opening gave {null}") from None
