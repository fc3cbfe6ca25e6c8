"""The only room that asks which operating system it is on.

Contract of a platform module (`linux` implements it; `unsupported` says so): process handles that cannot be
confused with a later process of the same pid, sealed memory files, resident memory of a process, deadlines in
the kernel. `here()` picks one; everything else in the package is written against these names.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__all__ = ["here"]


def here() -> ModuleType:
    """The platform module for this machine."""
    name = "linux" if sys.platform == "linux" else "unsupported"
    return importlib.import_module(f"{__name__}.{name}")
