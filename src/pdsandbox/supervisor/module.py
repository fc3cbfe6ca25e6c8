"""A compiled module as the supervisor holds it: types as data, and a sealed memfd with native code for workers.

The supervisor never looks into the artifact. The memfd is closed when the last module that uses it is collected, or
when the supervisor closes, whichever comes first; who needs it meanwhile works on a duplicate.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..calls import check_name, no_export, not_a_function
from ..errors import Cause, InstantiationError
from ..externs import ExportType, FuncType, ImportType
from ..interfaces import WasmModule
from ..platform import os_
from ..protocol import messages as m
from .calling import Export

# A module may have 100 KB names: those are not sent unasked.
_SHORT_NAME: Final = 200


class Artifact:
    """A sealed memfd with its size. `leave` runs a function later, in the housekeeper: closing is I/O."""

    def __init__(self, fd: int, size: int, leave: Callable[[Callable[[], Any]], Any]) -> None:
        self.size = size
        self._fd = fd
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, leave, functools.partial(os.close, fd))
        self._finalizer.atexit = False

    def duplicate(self) -> Duplicate:
        """A descriptor of the caller's own; InstantiationError, CLOSED, when the supervisor is closed."""
        with self._lock:
            if self._fd < 0:
                raise InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
            return Duplicate(self._fd)

    def close(self) -> None:
        """Twice is allowed."""
        with self._lock:
            if self._fd >= 0 and self._finalizer.detach() is not None:
                os.close(self._fd)
            self._fd = -1


class Duplicate:
    """A duplicate of a descriptor, closed at the latest with this object."""

    fd = -1

    def __init__(self, fd: int) -> None:
        self.fd = os_.above_std(os.dup(fd))

    def close(self) -> None:
        """Twice is allowed."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Compiled:
    """What a compilation gives; shared by all equal modules."""

    def __init__(self, artifact: Artifact, imports: tuple[ImportType, ...], exports: tuple[ExportType, ...]) -> None:
        self.artifact = artifact
        self.imports = imports
        self.exports = exports
        self.functions = {item.name: item.type for item in exports if isinstance(item.type, FuncType)}
        #: Its first exports that can be called, which workers number while loading; shared, and never changed.
        self.first = {
            name: Export(number, type_, None)
            for number, (name, type_) in enumerate(itertools.islice(self._callable(), m.MAX_AHEAD))
        }
        self.resolve = tuple(m.Resolve(export.type, name.encode()) for name, export in self.first.items())

    def _callable(self) -> Iterator[tuple[str, FuncType]]:
        for name, type_ in self.functions.items():
            if type_.unsupported is None and len(name) <= _SHORT_NAME:
                yield name, type_


class Module(WasmModule):
    """See `WasmModule`."""

    def __init__(self, host: object, compiled: Compiled, sha256: str) -> None:
        self.host = host
        self.compiled = compiled
        self._sha256 = sha256

    def exports(self) -> list[str]:
        return [item.name for item in self.compiled.exports]

    def export_types(self) -> list[ExportType]:
        """See `WasmModule.export_types`."""
        return list(self.compiled.exports)

    def imports(self) -> list[ImportType]:
        return list(self.compiled.imports)

    @property
    def sha256(self) -> str:
        return self._sha256

    def signature(self, name: str) -> FuncType:
        found = self.compiled.functions.get(check_name(name))
        if found is None:
            if any(item.name == name for item in self.compiled.exports):
                raise not_a_function(name)
            raise no_export(name)
        return found

    def __repr__(self) -> str:
        return f"<Module {self._sha256[:12]}: {len(self.compiled.exports)} exports>"
