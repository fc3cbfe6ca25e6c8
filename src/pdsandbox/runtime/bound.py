"""An export of a guest in this process with a buffer of its own, ready to be called over numbers.

It knows nothing of threads, of fuel budgets or of who may call.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from ..calls import no_export, unsupported
from ..errors import CallError
from ..slots import SLOT_BYTES, Slots
from .guest import Export, Guest

__all__ = ["Bound", "bind_export", "headroom"]

# wasmtime wants ValRaw aligned to its size; malloc promises as much for large blocks only.
_ALIGN = 16


class Bound:
    """An export with a buffer of its own: `call(fuel)` over the slots in `view`, which `fill` and `fill_plain` (see
    `Slots.filler`) write and `unpack` reads."""

    __slots__ = ("_block", "call", "fill", "fill_plain", "params", "results", "type", "unpack", "view")

    def __init__(self, guest: Guest, export: Export, params: Slots, results: Slots) -> None:
        self.type, self.params, self.results = export.type, params, results
        self._block: Any = ctypes.create_string_buffer(export.nslots * SLOT_BYTES + _ALIGN)
        start = -ctypes.addressof(self._block) % _ALIGN
        self.view = memoryview(self._block).cast("B")[start:]
        self.call = guest.bind(export, ctypes.addressof(self._block) + start)
        self.fill, self.fill_plain = params.filler(self.view, 0), params.plain_filler(self.view, 0)
        self.unpack = struct.Struct("<" + results.fields).unpack_from


def bind_export(guest: Guest, name: str, message_bytes: int) -> Bound:
    """CallError when there is no such export, it is no function, its types cannot cross, or its arguments are over the
    limit `message_bytes`."""
    export = guest.resolve(name)
    if export is None:
        raise no_export(name)
    if export.params is None or export.results is None:
        raise unsupported(export.name, export.type)
    if export.params.nbytes > message_bytes:
        text = f"the arguments take {export.params.nbytes:,} bytes; message_bytes allows {message_bytes:,}"
        raise CallError(text, limit=message_bytes, observed=export.params.nbytes)
    return Bound(guest, export, export.params, export.results)


def headroom() -> None:
    """RecursionError now, rather than at the door of a ctypes callback, where it could not be caught."""
    for _ in map(_nested, (8,)):
        pass


def _nested(depth: int) -> int:
    return depth and _nested(depth - 1)
