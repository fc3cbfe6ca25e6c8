"""What a worker does that lies about where its guest's memory is. Ships itself into the worker."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

kept: list[Any] = []


def lie(caller: Any, base: int, size: int) -> None:
    """From now on memory is said to be there."""
    gc.unfreeze()  # what was made before the fork is hidden from the collector
    (guest,) = (thing for thing in gc.get_objects() if type(thing) is sys.modules["pdsandbox.runtime.guest"].Guest)
    guest._raw_memory_size = lambda _context, _memory: size % 2**64
    guest._memory_seen = (base % 2**64, size % 2**64)


def find(caller: Any, what: int) -> int:
    """An address: of a buffer of the worker's own, or of machine code."""
    if what:
        return ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value or 0
    kept.append(ctypes.create_string_buffer(b"the worker's own, and nobody else's", 64))
    return ctypes.addressof(kept[-1])


def leave(caller: Any) -> None:
    """End, without a word."""
    os._exit(7)
