"""`fd_readdir`: what is in a directory, in pieces that fit the guest's buffer.

A listing is taken when the guest begins at 0 and kept for the cookies that follow, so that it is told each entry once
whatever is created and deleted meanwhile. A cookie is the number of entries that came before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from . import abi
from .attributes import filetype
from .memory import Errno
from .system import System
from .table import Directory, Entry


def fd_readdir(system: System, fd: int, buffer: int, size: int, cookie: int, out: int) -> None:
    within = system.table.directory(fd)
    memory = system.memory
    memory.address(out, 4, 4)
    if size:
        memory.address(buffer, size)
    if not within.reads:
        raise Errno(abi.BADF)
    if cookie == 0 or within.listing is None:
        within.listing = _listing(system, within)
    used = 0
    for following, inode, kind, name in within.listing[cookie:] if cookie < len(within.listing) else ():
        if used >= size:
            break
        # What does not fit is cut: by a full buffer the guest knows that there is more, and by what it asks again.
        raw = (abi.dirent.pack(following, inode, len(name), kind) + name)[: size - used]
        memory.write(buffer + used, raw)
        used += len(raw)
    memory.write_u32(out, used)


def _listing(system: System, within: Directory) -> list[Entry]:
    # Its own position: and what was granted may be open as O_PATH only.
    fd = system.open_at(within.fd, b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        own = os.fstat(fd)
        here = system.inode(own.st_dev, own.st_ino)
        # As wasmtime has it, ".." has this directory's number, too: what is above it is not the guest's to know.
        entries: list[Entry] = [(1, here, abi.DIRECTORY, b"."), (2, here, abi.DIRECTORY, b"..")]
        with os.scandir(fd) as found:
            for number, entry in enumerate(found, 3):
                inode = system.inode(own.st_dev, entry.inode())
                entries.append((number, inode, _type(entry, fd), os.fsencode(entry.name)))
        return entries
    finally:
        os.close(fd)


def _type(entry: os.DirEntry[str], fd: int) -> int:
    """Mostly the listing tells it itself."""
    if entry.is_symlink():
        return abi.SYMBOLIC_LINK
    if entry.is_dir(follow_symlinks=False):
        return abi.DIRECTORY
    if entry.is_file(follow_symlinks=False):
        return abi.REGULAR_FILE
    try:
        return filetype(os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # deleted meanwhile
        return abi.UNKNOWN


CALLS: Final[dict[str, Callable[..., None]]] = {"fd_readdir": fd_readdir}
