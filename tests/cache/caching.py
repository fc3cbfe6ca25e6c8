"""What the disk cache's tests share: compiled modules that are any bytes, and what is in a cache's directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pdsandbox.externs import ExportType, FuncType, ImportType, MemoryType
from pdsandbox.platform import os_
from pdsandbox.supervisor.disk import DiskCache
from pdsandbox.supervisor.diskplace import Place
from pdsandbox.supervisor.module import Artifact, Compiled

#: The most that the artifact of a module of this size may have, and more than any here.
SOURCE_BYTES = 1000
IMPORTS = (ImportType("env", "f\u00fc", FuncType(("i32",), ("i64", "f32"))),)
EXPORTS = (ExportType("memory", MemoryType(1, 2**48, True, False, 65536)), ExportType("go", FuncType((), ())))


def key(name: object) -> bytes:
    """A cache key."""
    return hashlib.sha256(repr(name).encode()).digest()


def compiled(code: bytes) -> Compiled:
    """A module whose native code is `code`; never to be run."""
    fd = os_.memfd("pdsandbox-artifact")
    os.write(fd, code)
    os_.seal(fd)
    return Compiled(Artifact(fd, len(code), lambda action: action()), IMPORTS, EXPORTS)


def code_of(module: Compiled) -> bytes:
    """Its native code, which nobody can change any more."""
    duplicate = module.artifact.duplicate()
    try:
        assert os_.is_sealed(duplicate.fd)
        with os_.map_readonly(duplicate.fd) as code:
            assert len(code) == module.artifact.size
            return bytes(code)
    finally:
        duplicate.close()


class Shelf:
    """One disk cache in a directory of its own, and its secret beside it."""

    def __init__(self, base: Path, most_bytes: int = 1 << 20) -> None:
        self.path = base / "cache"
        self.secret = base / "state" / "cache.key"
        self.most_bytes = most_bytes
        self.place = Place(str(self.path), str(self.secret))
        self.cache = self.fresh()

    def fresh(self) -> DiskCache:
        """As another supervisor has it: nothing told yet."""
        return DiskCache(self.place, self.most_bytes)

    def store(self, name: object, code: bytes) -> Path:
        """Store a module under key(name); where it lies, if it was stored."""
        module = compiled(code)
        self.cache.store(key(name), hashlib.sha256(code).digest(), "pdsandbox test", module)
        module.artifact.close()
        return self.entry(name)

    def load(self, name: object) -> bytes | None:
        """The native code under key(name), and its types are what was stored."""
        found = self.cache.load(key(name), SOURCE_BYTES, lambda action: action())
        if found is None:
            return None
        assert (found.imports, found.exports) == (IMPORTS, EXPORTS)
        try:
            return code_of(found)
        finally:
            found.artifact.close()

    def entry(self, name: object) -> Path:
        """Where it lies."""
        return self.path / f"{key(name).hex()}.code"

    def damaged(self, name: object) -> Path:
        """Where it lies when it was set aside."""
        return self.path / f"{key(name).hex()}.damaged"

    def names(self) -> set[str]:
        """All names in the directory."""
        return set(os.listdir(self.path))
