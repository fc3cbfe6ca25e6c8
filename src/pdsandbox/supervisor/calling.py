"""What every call needs and no call changes: an export's frames and codecs, and who may spin while waiting."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Final

from .. import cargs
from ..externs import FuncType
from ..protocol import messages as m
from ..protocol.frames import HEADER, HEADER_BYTES
from ..slots import Slots
from .handle import Handle

#: A whole CALL up to its slots. The header's three zero bytes make its kind a number of 32 bits.
HEAD: Final = struct.Struct("<II" + m.CALL_LAYOUT.format[1:])
# A whole RESULT up to its slots: the header as one number, fuel, and what `where` reads.
_RESULT: Final = "<QQ16x"
#: (memory base, memory bytes) of a RESULT, at `WHERE_AT`.
where: Final = struct.Struct("<QQ").unpack_from
WHERE_AT: Final = 16
# Calls further apart than this are not worth a core between them.
CLOSE_S: Final = 1e-3
# Looking takes 2 us for each worker that computes, of which there are rarely many.
LOOK_S: Final = 500e-6
#: How many fields of a RESULT come before its values.
FIELDS: Final = 2


class Export:
    """An exported function: its number in the worker, codecs for its types, its name until it was resolved there.

    unpack     reads a whole RESULT: `reply_head`, fuel, raw values

    For an event loop's calls, which share a buffer (`warm` has one for each export):

    pack       writes a whole CALL, raw arguments included, checking them
    raw        arguments as `pack` takes them
    integers   whether plain arguments are that already, or will be refused
    one        makes the WasmVal of the only result, where there is one; else None
    plain_one  makes the plain value of it; None if it is that already
    """

    __slots__ = (
        "call_head",
        "integers",
        "number",
        "one",
        "pack",
        "params",
        "plain_one",
        "raw",
        "reply_bytes",
        "reply_head",
        "reply_payload",
        "request_bytes",
        "request_payload",
        "request_size",
        "results",
        "stride",
        "type",
        "unpack",
        "unresolved",
    )

    def __init__(self, number: int, type_: FuncType, name: str | None) -> None:
        self.number = number
        self.unresolved: str | None = name
        self.type = type_
        self.params = Slots(type_.params)
        self.results = Slots(type_.results)
        self.stride = max(self.params.nbytes, self.results.nbytes)
        self.request_payload = m.CALL_LAYOUT.size + self.params.nbytes
        self.request_bytes = HEADER_BYTES + self.request_payload
        self.request_size = cargs.size(self.request_bytes)
        self.reply_payload = m.RESULT_LAYOUT.size + self.results.nbytes
        self.reply_bytes = HEADER_BYTES + self.reply_payload
        #: The header of a RESULT, as one number.
        self.reply_head = self.reply_payload | m.RESULT << 32
        self.call_head = HEADER.pack(self.request_payload, m.CALL)
        self.pack: Callable[..., None] = struct.Struct(HEAD.format + self.params.fields).pack_into
        self.raw = self.params.raw
        self.integers = self.params.plain_struct is not None
        self.unpack = struct.Struct(_RESULT + self.results.fields).unpack_from
        self.one = self.results.make_one
        self.plain_one = self.results.plain_one

    def numbered(self, number: int) -> Export:
        """The same with another number: in a worker where the first numbers are taken."""
        other: Export = object.__new__(Export)
        for name in Export.__slots__:
            setattr(other, name, getattr(self, name))
        other.number = number
        return other


class Cores:
    """Which workers compute now, so that nobody spins unless a core is free for both ends. Shared by a host.

    A worker computes if its call has been waited for a while: those that answer at once need no core of their own,
    because who spins for one keeps the GIL, and so is the only one. A set, because adding and discarding are
    atomic where counting up and down between threads is not.
    """

    __slots__ = ("_looked_at", "called_at", "computing", "most")

    def __init__(self, cores: int) -> None:
        self.computing: set[Handle] = set()
        self.most = cores - 1
        #: When the last call began, whoever's it was.
        self.called_at = -math.inf
        self._looked_at = -math.inf

    def flags(self, gap: float) -> int:
        """How the worker of a call that comes `gap` seconds after the last answer may wait: for host functions, for the
        next call. Spinning takes a core for each end."""
        if len(self.computing) >= self.most:
            return 0
        return m.SPIN | m.FREE if gap < CLOSE_S else m.FREE

    def free(self, now: float) -> bool:
        """Whether a core is free for whoever waits, after all: a worker that has answered does not compute any more,
        though its thread, which would say so, has to wait for the GIL."""
        if now - self._looked_at > LOOK_S:
            self._looked_at = now
            for handle in tuple(self.computing):
                if handle.has_answered():
                    self.computing.discard(handle)
        return len(self.computing) < self.most
