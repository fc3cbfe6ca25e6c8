"""Paths of the guest, resolved beneath a directory that it holds: no link, no "..", and no race leads out of it.

Two ways: the kernel's (openat2 with RESOLVE_BENEATH), and where that is missing a walk that opens one component at a
time, never follows a link itself, and goes up only to a directory that it came from. In both, what is then done by
name is done in a directory that is held open, and never follows that name.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, Protocol

from ...platform import files
from . import abi
from .memory import Errno

__all__ = ["KernelOpener", "Opener", "WalkingOpener", "opener", "parent_of"]

# As many links as Linux follows.
_MAX_LINKS: Final = 40
# Somebody moves directories at the same time: the kernel asks us to try again. Far more often than chance needs.
_TRIES: Final = 64
_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Opener(Protocol):
    """Opens beneath `dirfd`; `flags` as in openat(2), O_NOFOLLOW for the last component. OSError, or `Errno` PERM for
    a path that leads out."""

    def __call__(self, dirfd: int, path: bytes, flags: int, mode: int = 0) -> int: ...


class KernelOpener:
    """One system call."""

    def __call__(self, dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
        for _ in range(_TRIES):
            try:
                return files.open_beneath(dirfd, path, flags, mode)
            except OSError as exc:
                if exc.errno == errno.EXDEV:
                    raise Errno(abi.PERM) from None
                if exc.errno != errno.EAGAIN:
                    raise
        raise Errno(abi.AGAIN)


class WalkingOpener:
    """One system call a component."""

    def __call__(self, dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
        if not path:
            raise _failed(errno.ENOENT)
        stack: list[int] = []  # directories that we went down into, and may go up to
        try:
            return self._walk(dirfd, path, flags, mode, stack)
        finally:
            for fd in stack:
                os.close(fd)

    def _walk(self, dirfd: int, path: bytes, flags: int, mode: int, stack: list[int]) -> int:
        rest, links = _components(path), 0
        while True:
            name = rest.pop(0)
            here = stack[-1] if stack else dirfd
            last = not any(rest)  # nothing, or slashes only
            must_be_directory = bool(rest) or bool(flags & os.O_DIRECTORY)
            if name == b"..":
                if not stack:
                    raise Errno(abi.PERM)
                os.close(stack.pop())
                here = stack[-1] if stack else dirfd
                name = b"."
            if name == b"." and last:
                return os.open(b".", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
            if name in (b"", b"."):
                continue
            if last and not must_be_directory:
                try:
                    return _open_last(here, name, flags, mode)
                except OSError as exc:
                    if exc.errno != errno.ELOOP or flags & os.O_NOFOLLOW:
                        raise
            elif last and flags & os.O_CREAT:
                raise _failed(errno.EISDIR)
            fd = os.open(name, _PATH, dir_fd=here)
            try:
                kind = os.fstat(fd).st_mode
                if stat.S_ISLNK(kind):
                    if not rest and flags & os.O_NOFOLLOW:
                        raise _failed(errno.ENOTDIR)
                    links = _one_more(links)
                    rest = _components(os.readlink(b"", dir_fd=fd)) + rest
                elif stat.S_ISDIR(kind):
                    stack.append(fd)
                    fd = -1
                    if last:
                        rest = [b"."]
                elif last and not must_be_directory:
                    links = _one_more(links)
                    rest = [name]  # it was a link a moment ago
                else:
                    raise _failed(errno.ENOTDIR)
            finally:
                if fd >= 0:
                    os.close(fd)


def _open_last(here: int, name: bytes, flags: int, mode: int) -> int:
    """ELOOP for a link, also where O_PATH would open the link itself."""
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
    if flags & os.O_PATH and not flags & os.O_NOFOLLOW and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise _failed(errno.ELOOP)
    return fd


def _one_more(links: int) -> int:
    if links >= _MAX_LINKS:
        raise _failed(errno.ELOOP)
    return links + 1


def _failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _components(path: bytes) -> list[bytes]:
    """A closing slash leaves an empty one: what comes before it must be a directory."""
    if path.startswith(b"/"):
        raise Errno(abi.PERM)
    parts = path.split(b"/")
    return [part for part in parts[:-1] if part] + parts[-1:]


def opener(dirfd: int) -> Opener:
    """The better of the two that works here."""
    return KernelOpener() if files.opens_beneath(dirfd) else WalkingOpener()


def parent_of(open_at: Opener, dirfd: int, path: bytes) -> tuple[int, bytes, bool]:
    """(the directory in which the path's last name stands, open and the caller's to close; that name; whether a slash
    follows it). "." and ".." are no names: then it is the very directory that the path leads to, and the name "."."""
    if not path:
        raise Errno(abi.NOENT)
    bare = path.rstrip(b"/")
    head, _, name = bare.rpartition(b"/")
    if not bare or path.startswith(b"/"):
        raise Errno(abi.PERM)
    if name in (b".", b".."):
        return open_at(dirfd, bare, os.O_PATH | os.O_DIRECTORY), b".", True
    return open_at(dirfd, head or b".", os.O_PATH | os.O_DIRECTORY), name, len(bare) < len(path)
