"""The disk cache of compiled modules: what one supervisor compiled, later ones load, if it is what was stored.

Native code is loaded on the strength of its tag alone. What is checked is what is handed on: the file is copied into a
memory file once, which is sealed before it is hashed, and which all workers get. No locks: an entry is written under
another name and renamed, so any number of processes may share the directory. Nothing here fails a compilation:
whatever goes wrong is told once, and the module is compiled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final

from ..errors import InstantiationError
from ..platform import os_
from ..protocol import messages as m
from ..text import one_line
from . import diskfiles
from .diskfiles import Kind, name_of
from .diskformat import HEAD_BYTES, Damaged, Head, Sealer, Types
from .diskplace import Place, Unusable, create, open_regular, remove, status, sync
from .module import Artifact, Compiled

# As large as the pieces in which the hash lets other threads run.
_PIECE: Final = 1 << 20


class DiskCache:
    """See the module's text. `most_bytes` caps the directory, whoever wrote what is in it."""

    def __init__(self, place: Place, most_bytes: int) -> None:
        self._place = place
        self._most = most_bytes
        self._untold = threading.Lock()

    def load(self, key: bytes, source_bytes: int, leave: Callable[[Callable[[], Any]], Any]) -> Compiled | None:
        """What was stored for `key`, or None. `leave` is for its `Artifact`."""
        try:
            directory = self._place.open()
        except FileNotFoundError:
            return None
        except (OSError, Unusable) as exc:
            self._tell("is not used", exc)
            return None
        try:
            return self._load(directory, key, m.artifact_cap(source_bytes), leave)
        except FileNotFoundError:
            return None
        except (OSError, Unusable) as exc:
            self._tell("could not be read", exc)
            return None
        finally:
            os.close(directory)

    def _load(
        self, directory: int, key: bytes, most: int, leave: Callable[[Callable[[], Any]], Any]
    ) -> Compiled | None:
        name = name_of(key, Kind.CODE)
        seen = status(directory, name)
        if seen is None:
            return None
        try:
            fd = open_regular(directory, name)
            try:
                secret = self._place.secret()
                if secret is None:
                    raise Damaged("its key is lost")
                found = read_entry(fd, key, secret, most, leave)
                _touch(fd)
            finally:
                os.close(fd)
        except Damaged as exc:
            aside = "was" if _set_aside(directory, name, key, seen) else "could not be"
            self._tell(f"had a damaged entry, {name}, which {aside} set aside", exc)
            return None
        return found

    def store(self, key: bytes, source: bytes, versions: str, compiled: Compiled) -> None:
        """Keep it, if there is room for it at all. `source` is the SHA-256 of what it was compiled from."""
        types = Types(versions, compiled.imports, compiled.exports).pack()
        if HEAD_BYTES + len(types) + compiled.artifact.size > self._most:
            return
        try:
            artifact = compiled.artifact.duplicate()
        except (OSError, InstantiationError):  # no descriptors, or closed meanwhile: not the cache's affair
            return
        head = Head(key, source, len(types), compiled.artifact.size)
        try:
            directory = self._place.open(make=True)
            try:
                secret = self._place.secret(make=True)
                assert secret is not None
                self._write(directory, head, types, artifact.fd, secret)
            finally:
                os.close(directory)
        except (OSError, Unusable) as exc:
            self._tell("could not be written", exc)
        finally:
            artifact.close()

    def _write(self, directory: int, head: Head, types: bytes, artifact: int, secret: bytes) -> None:
        try:
            now = write_entry(directory, head, types, artifact, secret)
        except FileNotFoundError:
            return  # somebody cleared the cache, or removed it, meanwhile
        for file in diskfiles.superfluous(diskfiles.listed(directory), self._most, now):
            _remove(directory, file.name)

    def _tell(self, what: str, exc: Exception) -> None:
        text = f"the disk cache in {self._place.directory} {what} ({exc}); modules are compiled instead"
        import logging  # takes 6 ms, which nobody who is told nothing need spend

        # Never released: whoever takes it is the first.
        level = logging.WARNING if self._untold.acquire(blocking=False) else logging.DEBUG
        extra = {
            "pd_event": "CacheTrouble",
            "pd_directory": one_line(self._place.directory),
            "pd_error": one_line(str(exc)),
        }
        logging.getLogger("pdsandbox.cache").log(level, "%s", one_line(text), extra=extra)


def read_entry(fd: int, key: bytes, secret: bytes, most: int, leave: Callable[[Callable[[], Any]], Any]) -> Compiled:
    """The entry in an open file. Damaged unless it is for `key` and was sealed with `secret`."""
    head = Head.unpack(_read(fd, HEAD_BYTES), os.fstat(fd).st_size, most)
    if head.key != key:
        raise Damaged("an entry for something else")
    types = _read(fd, head.metadata_bytes)
    memory = os_.memfd("pdsandbox-artifact")
    try:
        left = head.artifact_bytes
        while left:
            piece = memoryview(_read(fd, min(left, _PIECE)))
            if not piece:
                raise Damaged("it was cut while it was read")
            left -= len(piece)
            _write(memory, piece)
        os_.seal(memory)
        sealer = Sealer(secret, head)
        sealer.update(types)
        sealer.update(os_.map_readonly(memory))
        sealer.check(head.tag)
        known = Types.unpack(types)
    except BaseException:
        os.close(memory)
        raise
    return Compiled(Artifact(memory, head.artifact_bytes, leave), known.imports, known.exports)


def write_entry(directory: int, head: Head, types: bytes, artifact: int, secret: bytes) -> int:
    """Write the entry whose native code is in the sealed memory file `artifact`; when, by the file system's clock."""
    sealer = Sealer(secret, head)
    sealer.update(types)
    scratch = name_of(head.key, Kind.WRITING, another=True)
    fd = create(directory, scratch)
    try:
        code = memoryview(os_.map_readonly(artifact))  # not closed here: an exception's traceback may hold a piece
        sealer.update(code)
        sealed = Head(head.key, head.source, head.metadata_bytes, head.artifact_bytes, sealer.tag())
        _write(fd, memoryview(sealed.pack() + types))
        _write(fd, code)
        # Not a name before the bytes are there, also after a power cut.
        os.fsync(fd)
        now = os.fstat(fd).st_mtime_ns
        os.rename(scratch, name_of(head.key, Kind.CODE), src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _remove(directory, scratch)
        raise
    finally:
        os.close(fd)
    sync(directory)
    return now


def _set_aside(directory: int, name: str, key: bytes, seen: os.stat_result) -> bool:
    """Quarantine the entry; whether it is out of the way. If another process has put a new one there, it is."""
    now = status(directory, name)
    if now is None or (now.st_dev, now.st_ino) != (seen.st_dev, seen.st_ino):
        return True
    for another in (False, True):  # there may be a directory of the first name
        try:
            aside = name_of(key, Kind.DAMAGED, another=another)
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            return True
        except OSError:
            continue
        return True
    return False


def _read(fd: int, count: int) -> bytes:
    """`count` bytes, or as many as there are."""
    parts = []
    while count and (part := os.read(fd, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write(fd: int, view: memoryview) -> None:
    at = 0
    while at < len(view):
        at += os.write(fd, view[at : at + _PIECE])


def _touch(fd: int) -> None:
    """Used now. A cache that may only be read has no order of use."""
    try:
        os.utime(fd)
    except OSError:
        pass


def _remove(directory: int, name: str) -> None:
    """What cannot be removed stays, and is counted again the next time."""
    try:
        remove(directory, name)
    except OSError:
        pass
