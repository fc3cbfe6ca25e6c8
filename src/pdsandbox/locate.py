"""Where wasmtime's shared library is, and whether we know it: found without importing the wasmtime package.

The supervisor never loads wasmtime, but names the file to those who do. This module must neither import nor
open it: it only reads the package's place and its metadata.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Final

__all__ = ["ENGINE_REVISION", "TESTED_VERSIONS", "wasmtime_library"]

#: Calls go straight to the C API, whose struct layouts may change between versions: others are refused.
TESTED_VERSIONS: Final = ("50.0.1",)
#: Part of the disk cache's key, beside the versions: one more whenever `runtime.engine.Engine` configures wasmtime in
#: another way, since an engine refuses code that was compiled for another configuration.
ENGINE_REVISION: Final = 1

_LIBRARY = {"linux": "_libwasmtime.so", "android": "_libwasmtime.so", "darwin": "_libwasmtime.dylib"}
_MACHINE = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}


def wasmtime_library() -> tuple[str, str]:
    """(path of wasmtime's shared library, its version); ImportError, saying how to fix it, when there is none
    that pdsandbox was tested with."""
    tested = " or ".join(TESTED_VERSIONS)
    fix = f"install it with: {sys.executable or 'python'} -m pip install wasmtime=={TESTED_VERSIONS[-1]}"
    try:
        spec = importlib.util.find_spec("wasmtime")
        version = importlib.metadata.version("wasmtime")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        spec, version = None, ""
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"pdsandbox needs the package wasmtime {tested}, which is not installed; {fix}", name="wasmtime"
        )
    if version not in TESTED_VERSIONS:
        raise ImportError(
            f"found wasmtime {version}, but pdsandbox was tested with {tested} only; {fix}", name="wasmtime"
        )
    system = "android" if hasattr(sys, "getandroidapilevel") else sys.platform
    machine = _MACHINE.get(platform.machine(), platform.machine())
    for root in spec.submodule_search_locations:
        path = os.path.join(root, f"{system}-{machine}", _LIBRARY.get(system, "_libwasmtime"))
        if os.path.isfile(path):
            return os.path.abspath(path), version
    raise ImportError(
        f"the installed wasmtime {version} has no library for {system} on {machine}; wasmtime {tested} supports "
        f"Linux and macOS on x86_64 and aarch64 here; {fix} --force-reinstall",
        name="wasmtime",
    )
