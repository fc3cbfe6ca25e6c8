"""What every call needs and no call changes: an export's codecs, and who may spin while waiting."""

from __future__ import annotations

from ..externs import FuncType
from ..protocol import messages as m
from ..protocol.frames import HEADER
from ..slots import Slots
from .handle import Handle


class Export:
    """An exported function: its number in the worker, codecs for its types, its name until it was resolved there."""

    __slots__ = ("call_head", "number", "params", "results", "stride", "type", "unresolved")

    def __init__(self, number: int, type_: FuncType, name: str | None) -> None:
        self.number = number
        self.unresolved: str | None = name
        self.type = type_
        self.params = Slots(type_.params)
        self.results = Slots(type_.results)
        self.stride = max(self.params.nbytes, self.results.nbytes)
        self.call_head = HEADER.pack(m.CALL_LAYOUT.size + self.params.nbytes, m.CALL)


class Spin:
    """Which operations run now, so that nobody spins unless a core is free for both ends. Shared by a host.

    A set, because adding and discarding are atomic where counting up and down between threads is not.
    """

    __slots__ = ("most", "running")

    def __init__(self, cores: int) -> None:
        self.running: set[Handle] = set()
        self.most = cores // 2
