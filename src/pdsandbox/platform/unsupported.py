"""Systems on which workers cannot be locked down and watched as on Linux: refused, with what to use instead."""

from __future__ import annotations

import sys


def missing() -> str | None:
    """Why workers cannot run here."""
    return (
        f"worker processes need Linux (pidfd, memfd, /proc); this is {sys.platform}. "
        "Use WasmtimeHost for modules that you trust, or run this in a Linux VM or container."
    )
