"""A `Wasi`, opened: directories as descriptors; streams as bytes, a descriptor, or an object of Python's.

Both hosts ask this, in the user's own process and with the user's rights, so that the same `Wasi` means the same on
both. Reads and writes nothing but what a file object has buffered itself.
"""

from __future__ import annotations

import os
from typing import Any

from .errors import Cause, InstantiationError
from .text import one_line
from .wasi import Wasi

__all__ = ["input_of", "open_dirs", "output_of"]


def open_dirs(wasi: Wasi) -> list[int]:
    """A descriptor for each directory, close-on-exec, the caller's to close. InstantiationError, USAGE, for what is no
    directory, is not there, or may not be read."""
    opened: list[int] = []
    try:
        for item in wasi.dirs:
            try:
                opened.append(os.open(item.host_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError as exc:
                text = f"the directory {one_line(repr(item.host_path))} cannot be granted: {exc.strerror}"
                raise InstantiationError(text, cause=Cause.USAGE) from exc
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def input_of(given: Any) -> Any:
    """bytes as they are; a descriptor, which stays the caller's; or an object whose `read` is to be called.

    A file object with a descriptor is read through that, from where the object stands, if it can be positioned; what
    it has buffered of a pipe is lost. InstantiationError, USAGE, for one that fails at that.
    """
    fd = _fd_of(given)
    if fd is None:
        return given
    if not isinstance(given, int):
        try:
            if given.seekable():
                os.lseek(fd, given.tell(), os.SEEK_SET)
        except Exception as exc:  # whatever an object of the user's raises
            raise _unusable("stdin", exc) from exc
    return fd


def output_of(given: Any) -> Any:
    """A descriptor, which stays the caller's, after what its file object had buffered; or a function to be called with
    bytes; None for a stream that is captured. InstantiationError, USAGE, for a file object that fails at that."""
    if given is None:
        return None
    fd = _fd_of(given)
    if fd is not None:
        if not isinstance(given, int):
            try:
                given.flush()
            except Exception as exc:
                raise _unusable("stdout or stderr", exc) from exc
        return fd
    return given.write if hasattr(given, "write") else given


def _unusable(what: str, exc: Exception) -> InstantiationError:
    text = f"{what} cannot be granted: {type(exc).__name__}: {exc}"
    return InstantiationError(one_line(text), cause=Cause.USAGE)


def _fd_of(given: Any) -> int | None:
    if isinstance(given, int):
        return given
    try:
        fd = given.fileno()
    except (AttributeError, OSError, ValueError):  # none, or one in memory only, or closed
        return None
    return fd if isinstance(fd, int) and fd >= 0 else None
