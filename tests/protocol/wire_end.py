"""One end of a conversation, joined to the other by nothing but bytes."""

from __future__ import annotations

from collections.abc import Iterator

from pdsandbox.protocol import messages as m
from pdsandbox.protocol.frames import FrameReader
from pdsandbox.protocol.orders import Orders, State

#: Who may send what. The rest of the table's kinds belong to nobody.
SUPERVISOR = frozenset(
    cls.KIND
    for cls in (
        *(m.Load, m.Resolve, m.Call, m.CallMany, m.MemRead, m.MemWrite, m.HostReturn, m.HostFail),
        *(m.StreamReply, m.StreamTaken, m.Drop, m.Compile, m.MemGrow),
    )
)
WORKER = frozenset(
    cls.KIND
    for cls in (
        *(m.Ready, m.Loaded, m.Result, m.Results, m.Error, m.HostCall, m.HostLog, m.MemData, m.MemDone),
        *(m.StreamOut, m.StreamWrite, m.StreamRead, m.StreamPoll, m.LinkTimes, m.Compiled, m.Artifact, m.MemGrown),
    )
)


def advance(orders: Orders, message: m.Message) -> None:
    """Move by `message`, RESULTS by its own flag."""
    orders.advance(message.KIND, failed=isinstance(message, m.Results) and message.failed)


class End:
    """Checks and encodes what it sends, takes apart, decodes and checks what arrives."""

    def __init__(self, sends: frozenset[int], cap: int = m.SMALL_CAP) -> None:
        self.sends = sends
        self.orders = Orders()
        self.reader = FrameReader(cap)

    @property
    def state(self) -> State:
        return self.orders.state

    def send(self, message: m.Message) -> bytes:
        assert message.KIND in self.sends
        advance(self.orders, message)
        return message.frame()

    def receive(self, data: bytes) -> Iterator[m.Message]:
        """The messages that are whole now; ProtocolError for the first that must not come."""
        self.reader.feed(data)
        while (got := self.reader.next()) is not None:
            message = m.decode(*got)
            advance(self.orders, message)
            yield message
