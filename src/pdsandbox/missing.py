"""Why an import of WASI's is missing, and what would help. Pure."""

from __future__ import annotations

from typing import Final

from .text import quoted

__all__ = ["PREVIEW1", "missing_import"]

#: The import module of WASI preview 1.
PREVIEW1: Final = "wasi_snapshot_preview1"


def missing_import(module: str, name: str, *, granted: bool) -> str | None:
    """Why an import of WASI's is missing, and what would help; None for an import that is none of WASI's. `granted`:
    the instance has a `Wasi`."""
    what = f"missing import {quoted(module)}.{quoted(name)}"
    if module == PREVIEW1:
        if granted:
            return f"{what}: WASI preview 1 has no such function"
        return f"{what}: the module is a WASI program; grant it WASI with instantiate(…, wasi=Wasi(…))"
    if module == "wasi_unstable":
        return f"{what}: wasi_unstable, the version before WASI preview 1, is not offered; rebuild it for {PREVIEW1}"
    if module == "wasi":
        return f"{what}: WASI threads are not offered; rebuild it without them"
    if module.startswith("wasi:"):
        return f"{what}: that is of WASI preview 2, for components; build a module for {PREVIEW1} (wasm32-wasip1)"
    return None
