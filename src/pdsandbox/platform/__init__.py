"""The only room that asks which operating system it is on.

Contract of a platform module (`linux` implements it; `unsupported` says so): process handles that cannot be
confused with a later process of the same pid, sealed memory files, resident memory of a process, deadlines in
the kernel. `missing()` says why workers cannot run here, or gives None; everything else in the package is written
against the names in `os_`.
"""

from __future__ import annotations

import sys

if sys.platform == "linux":
    from . import linux as os_
else:
    from . import unsupported as os_

__all__ = ["os_"]
