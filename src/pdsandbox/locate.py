"""Where wasmtime's shared library is, and whether we know it: found without importing the wasmtime package.

The supervisor never loads wasmtime, but names the file to those who do. This module must neither import nor
open it: it only reads the package's place and the name of its metadata, `importlib.metadata`, whose import takes 20 ms,
being asked only where that does not tell.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["ENGINE_REVISION", "TESTED_VERSIONS", "wasmtime_library"]

#: Calls go straight to the C API, whose struct layouts may change between versions: others are refused.
TESTED_VERSIONS: Final = ("50.0.1",)
#: Part of the disk cache's key, beside the versions: one more whenever `runtime.engine.Engine` configures wasmtime in
#: another way, since an engine refuses code that was compiled for another configuration.
ENGINE_REVISION: Final = 2

_LIBRARY = {"linux": "_libwasmtime.so", "android": "_libwasmtime.so", "darwin": "_libwasmtime.dylib"}
_MACHINE = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}


def wasmtime_library() -> tuple[str, str]:
    """(path of wasmtime's shared library, its version); ImportError, saying how to fix it, when there is none
    that pdsandbox was tested with."""
    tested = " or ".join(TESTED_VERSIONS)
    fix = f"install it with: {sys.executable or 'python'} -m pip install wasmtime=={TESTED_VERSIONS[-1]}"
    spec = PathFinder.find_spec("wasmtime") or _found_otherwise()
    version = "" if spec is None else _version(spec)
    if spec is None or not spec.submodule_search_locations or not version:
        raise ImportError(
            f"pdsandbox needs the package wasmtime {tested}, which is not installed; {fix}", name="wasmtime"
        )
    if version not in TESTED_VERSIONS:
        raise ImportError(
            f"found wasmtime {version}, but pdsandbox was tested with {tested} only; {fix}", name="wasmtime"
        )
    system = "android" if hasattr(sys, "getandroidapilevel") else sys.platform
    machine = _machine()
    for root in spec.submodule_search_locations:
        path = os.path.join(root, f"{system}-{machine}", _LIBRARY.get(system, "_libwasmtime"))
        if os.path.isfile(path):
            return os.path.abspath(path), version
    raise ImportError(
        f"the installed wasmtime {version} has no library for {system} on {machine}; wasmtime {tested} supports "
        f"Linux and macOS on x86_64 and aarch64 here; {fix} --force-reinstall",
        name="wasmtime",
    )


def _found_otherwise() -> ModuleSpec | None:
    """By somebody's own way of importing."""
    import importlib.util

    try:
        return importlib.util.find_spec("wasmtime")
    except ValueError:  # it is being imported, or was put there by hand
        return None


def _version(spec: ModuleSpec) -> str:
    """What is installed; empty when that cannot be told."""
    for root in spec.submodule_search_locations or ():
        try:
            beside = os.listdir(os.path.dirname(root))
        except OSError:
            continue
        named = [name for name in beside if name.startswith("wasmtime-") and name.endswith(".dist-info")]
        if len(named) == 1:
            return named[0].removeprefix("wasmtime-").removesuffix(".dist-info")
    import importlib.metadata

    try:
        return importlib.metadata.version("wasmtime")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _machine() -> str:
    if hasattr(os, "uname"):
        machine = os.uname().machine
    else:
        import platform  # 3 ms

        machine = platform.machine()
    return _MACHINE.get(machine, machine)
