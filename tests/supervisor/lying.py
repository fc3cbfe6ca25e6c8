"""What a worker does that lies about where its guest's memory is. Ships itself into the worker."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

kept: list[Any] = []


class Liar:
    """In place of the engine's C interface: all as it was, but for one memory's place and size."""

    def __init__(self, honest: Any, base: int, size: int) -> None:
        self._honest = honest
        self.wasmtime_memory_data = lambda _context, _memory: base
        self.wasmtime_memory_data_size = lambda _context, _memory: size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)


def lie(caller: Any, base: int, size: int) -> None:
    """From now on memory is said to be there."""
    gc.unfreeze()  # what was made before the fork is hidden from the collector
    (guest,) = (thing for thing in gc.get_objects() if type(thing) is sys.modules["pdsandbox.runtime.guest"].Guest)
    honest = getattr(guest._c, "_honest", guest._c)
    guest._c = Liar(honest, base % 2**64, size % 2**64)
    guest._memory_seen = (0, -1)


def find(caller: Any, what: int) -> int:
    """An address: of a buffer of the worker's own, or of machine code."""
    if what:
        return ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value or 0
    kept.append(ctypes.create_string_buffer(b"the worker's own, and nobody else's", 64))
    return ctypes.addressof(kept[-1])


def leave(caller: Any) -> None:
    """End, without a word."""
    os._exit(7)
