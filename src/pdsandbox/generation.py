"""Which process this is: objects that own processes and descriptors belong to the process that made them.

A fork of the user's process inherits our objects, but not our threads, and its descriptors are the parent's too.
Every public entry compares; finalisers and exit hooks in a forked child do nothing. A counter, bumped by the
interpreter after a fork, is a tenth of the price of getpid().
"""

from __future__ import annotations

import os

__all__ = ["now"]

#: A number that changes in a forked child. Read it as `generation.now`.
now = 0


def _bump() -> None:
    global now
    now += 1


os.register_at_fork(after_in_child=_bump)
