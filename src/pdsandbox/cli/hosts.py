"""Where the commands get their host, and what they ask of a module beyond the interface.

The one seam between the command line and the rest of the library: tests put another host here. Imports the
supervisor only when asked for one, so that `--help` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CallError
from ..externs import ExportType, FuncType, ImportType

if TYPE_CHECKING:
    from ..interfaces import WasmHost, WasmModule
    from ..limits import Limits

__all__ = ["export_types", "function_exports", "is_wasi", "open_host"]


def open_host(limits: Limits) -> WasmHost:
    """A supervisor with these limits."""
    from ..supervisor.host import Supervisor

    host: WasmHost = Supervisor(limits=limits)
    return host


def export_types(module: WasmModule) -> list[ExportType]:
    """All exports with their types, in declaration order."""
    known = getattr(module, "export_types", None)
    if known is not None:
        return list(known())
    found = []
    for name in module.exports():
        try:
            found.append(ExportType(name, module.signature(name)))
        except CallError:
            continue
    return found


def function_exports(module: WasmModule) -> dict[str, FuncType]:
    """The exported functions, in declaration order."""
    return {e.name: e.type for e in export_types(module) if isinstance(e.type, FuncType)}


def is_wasi(wanted: ImportType) -> bool:
    """Whether an import asks for the WebAssembly System Interface, of whatever version."""
    return wanted.module.startswith(("wasi_", "wasi:"))
