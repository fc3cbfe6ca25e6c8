"""Where compiled modules are kept on disk, and the secret that authenticates them: opened only if nobody else's.

The directory and the one of the secret must be the user's own, closed to everybody else (mode 0700), and not beneath a
directory in which anybody may replace them. The secret is one file per user, outside the directory: whoever can write
in the cache, or brings one along, cannot make code that would be loaded. Knows nothing of what is kept.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import Final

from ..platform import os_
from .diskformat import SECRET_BYTES, Damaged

#: A file that was begun longer ago than this was left by a process that ended: writing takes seconds.
ABANDONED_NS: Final = 3600 * 10**9


class Unusable(Exception):
    """Why there is no disk cache here: a sentence for the user."""


def default_directory() -> str | None:
    """The XDG base directory specification's place for a cache; None where this user has no home of their own."""
    return _in_home("XDG_CACHE_HOME", ".cache", "pdsandbox")


def default_secret() -> str | None:
    """That specification's place for what a program keeps; None as in `default_directory`."""
    return _in_home("XDG_STATE_HOME", os.path.join(".local", "state"), os.path.join("pdsandbox", "cache.key"))


def _in_home(variable: str, below: str, name: str) -> str | None:
    base = os.environ.get(variable, "")
    if os.path.isabs(base):  # relative ones are to be ignored, the specification says
        return os.path.join(base, name)
    home = os.path.expanduser("~")
    try:
        # Under sudo it may be another's, where nothing of root's should be left.
        own = os.path.isabs(home) and os.stat(home).st_uid == os.geteuid()
    except OSError:
        return None
    return os.path.join(home, below, name) if own else None


class Place:
    """A directory for compiled modules, and the file with the secret; both absolute paths."""

    def __init__(self, directory: str, secret: str | None) -> None:
        self.directory = directory
        self._secret = secret

    def open(self, *, make: bool = False) -> int:
        """A descriptor of the directory, the caller's to close. Unusable; OSError; FileNotFoundError unless `make`."""
        return _open_private(self.directory, make=make)

    def secret(self, *, make: bool = False) -> bytes | None:
        """The secret; where there is none, or a damaged one: a new one if `make`, else None. Unusable, OSError."""
        if self._secret is None:
            raise Unusable("there is no home directory to keep its key in; set XDG_STATE_HOME")
        folder, name = os.path.split(self._secret)
        inside, outside = os.path.realpath(folder), os.path.realpath(self.directory)
        if os.path.commonpath([inside, outside]) == outside:
            raise Unusable(f"its key would lie in the cache itself, in {folder}; set XDG_STATE_HOME to another place")
        try:
            directory = _open_private(folder, make=make)
        except FileNotFoundError:
            if make:
                raise
            return None
        try:
            try:
                return _read_secret(directory, name)
            except (FileNotFoundError, Damaged) as exc:
                if not make:
                    return None
                _make_secret(directory, name, replace=isinstance(exc, Damaged))
            try:
                return _read_secret(directory, name)
            except (FileNotFoundError, Damaged) as exc:
                raise Unusable(f"its key {self._secret} does not stay as it was written: {exc}") from exc
        finally:
            os.close(directory)


def open_regular(directory: int, name: str) -> int:
    """A descriptor for reading a file of the user's alone. Damaged for anything else of that name; OSError."""
    _check_regular(os.stat(name, dir_fd=directory, follow_symlinks=False))
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os_.above_std(os.open(name, flags, dir_fd=directory))
    try:
        _check_regular(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Damaged("not a regular file")
    if found.st_uid != os.geteuid():
        raise Damaged(f"owned by user {found.st_uid}")
    if found.st_mode & 0o077:
        raise Damaged(f"open to others (mode {stat.S_IMODE(found.st_mode):o})")


def create(directory: int, name: str) -> int:
    """A descriptor for writing a new file, mode 0600 whatever the umask."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os_.above_std(os.open(name, flags, 0o600, dir_fd=directory))
    try:
        os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        remove(directory, name)
        raise
    return fd


def _open_private(path: str, *, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        if not make:
            raise
        _make_directory(path)
        fd = os.open(path, flags)
    fd = os_.above_std(fd)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise Unusable(f"{path} is owned by user {found.st_uid}, not by {os.geteuid()}")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise Unusable(f"{path} is open to others (mode {mode:o}); it must have mode 700")
        _check_above(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_above(path: str) -> None:
    """Where everybody may write, everybody may put another directory of this user's in the place of this one, or of a
    link that leads to it."""
    for start in dict.fromkeys((path, os.path.realpath(path))):
        above, below = os.path.dirname(start), start
        while above != below:
            mode = stat.S_IMODE(os.stat(above).st_mode)
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise Unusable(f"{path} is beneath {above}, which is writable for everybody (mode {mode:o})")
            above, below = os.path.dirname(above), above


def _make_directory(path: str) -> None:
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make_directory(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another process was faster; or it is no directory, as opening it will tell


def _read_secret(directory: int, name: str) -> bytes:
    fd = open_regular(directory, name)
    try:
        secret = os.read(fd, SECRET_BYTES + 1)
    finally:
        os.close(fd)
    if len(secret) != SECRET_BYTES:
        raise Damaged(f"{len(secret)} bytes are no key")
    return secret


def _make_secret(directory: int, name: str, *, replace: bool) -> None:
    """Put a new one there, whole from the first moment, unless another process was faster."""
    scratch = f".{name}.{secrets.token_hex(8)}"
    fd = create(directory, scratch)
    try:
        try:
            os.write(fd, secrets.token_bytes(SECRET_BYTES))
            os.fsync(fd)
            now = os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        if replace:
            os.rename(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            try:
                os.link(scratch, name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileExistsError:
                pass
        sync(directory)
        _sweep(directory, f".{name}.", now)
    finally:
        remove(directory, scratch)


def _sweep(directory: int, prefix: str, now: int) -> None:
    for name in os.listdir(directory):
        if name.startswith(prefix):
            found = status(directory, name)
            if found is not None and now - found.st_mtime_ns > ABANDONED_NS:
                remove(directory, name)


def sync(directory: int) -> None:
    """Bring its names to the disk, where the file system can: one that is lost in a power cut is a miss, no more."""
    try:
        os.fsync(directory)
    except OSError:
        pass


def status(directory: int, name: str) -> os.stat_result | None:
    """Of the name itself, not of what a symbolic link leads to; None when it is gone."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(directory: int, name: str) -> bool:
    """Whether it was there. An empty directory goes, too; a full one is not ours to empty: OSError."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    except (IsADirectoryError, PermissionError):  # Linux, POSIX
        os.rmdir(name, dir_fd=directory)
    return True
