"""Answers a module's WASI imports with raw functions over one guest's `System`.

An errno goes back to the guest; whatever else a call raises (its exit, a pointer outside its memory) ends the guest's
call.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import memmove, string_at
from typing import Final

from ...externs import ImportType
from ..guest import RawFunction
from . import abi, descriptors, files, paths, polling, process, readdir
from .memory import Errno
from .system import System

__all__ = ["bind"]

_CALLS: Final[dict[str, Callable[..., None]]] = {
    **process.CALLS,
    **files.CALLS,
    **descriptors.CALLS,
    **readdir.CALLS,
    **paths.CALLS,
    **polling.CALLS,
}
_RESULT: Final = [code.to_bytes(16, "little") for code in range(len(abi.ERRNO))]


def bind(system: System, wanted: ImportType) -> RawFunction | None:
    """The raw function for an import of `wasi_snapshot_preview1`; None when it is not one of its functions."""
    call = _CALLS.get(wanted.name) if wanted.module == abi.MODULE else None
    if call is None:
        return None
    arguments = abi.ARGUMENTS[wanted.name]
    unpack, nbytes = arguments.unpack, arguments.size

    def raw(address: int) -> None:
        code = 0
        try:
            call(system, *unpack(string_at(address, nbytes)))
        except Errno as exc:
            code = exc.code
        except OSError as exc:
            code = abi.from_os(exc.errno)
        memmove(address, _RESULT[code], 16)

    return RawFunction(abi.SIGNATURES[wanted.name], raw)
