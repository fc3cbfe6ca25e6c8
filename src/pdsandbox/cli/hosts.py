"""Where the commands get their host, and what they ask of a module beyond the interface.

The one seam between the command line and the rest of the library: tests put another host here. Imports the
supervisor only when asked for one, so that `--help` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..externs import FuncType, ImportType
from ..missing import PREVIEW1

if TYPE_CHECKING:
    from ..hardening import Hardening
    from ..interfaces import WasmHost, WasmModule
    from ..limits import Limits
    from ..supervisor.host import Supervisor

__all__ = ["function_exports", "is_preview1", "is_wasi", "open_host", "open_supervisor"]


def open_host(limits: Limits, hardening: str = "default", *, cache: bool = True) -> WasmHost:
    """A supervisor with these limits, its workers locked down so, and this user's cache of compiled modules."""
    from ..supervisor.host import Supervisor

    directory = None
    if cache:
        from ..supervisor.diskplace import default_directory

        directory = default_directory()
    # A command runs one guest: a spare would be started for nothing.
    host: WasmHost = Supervisor(limits=limits, hardening=hardening, cache_dir=directory, spares=0)
    return host


def open_supervisor(hardening: Hardening) -> Supervisor:
    """A supervisor to ask how its workers are locked down, without any worker but those that are asked for."""
    from ..supervisor.host import Supervisor

    return Supervisor(hardening=hardening, spares=0)


def function_exports(module: WasmModule) -> dict[str, FuncType]:
    """The exported functions, in declaration order."""
    return {e.name: e.type for e in module.export_types() if isinstance(e.type, FuncType)}


def is_wasi(wanted: ImportType) -> bool:
    """Whether an import asks for the WebAssembly System Interface, of whatever version."""
    return wanted.module.startswith(("wasi_", "wasi:"))


def is_preview1(wanted: ImportType) -> bool:
    """Whether an import asks for the version of it that there is."""
    return wanted.module == PREVIEW1
