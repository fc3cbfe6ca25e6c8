"""Which message is legal when, as a table: one state per conversation, moved by each message either side sends.

Both ends hold an `Orders`; the supervisor's is what makes an unexpected reply a verdict. Pure.
"""

from __future__ import annotations

import enum
from typing import Final

from . import messages as m
from .codec import ProtocolError

__all__ = ["Orders", "State"]


class State(enum.IntEnum):
    """Who owes what to whom."""

    STARTING = 1  # the worker owes READY
    FRESH = 2  # the supervisor may send LOAD or COMPILE
    LOADING = 3  # the worker owes LOADED or ERROR, and may make host calls
    LOADING_HOST = 4  # the supervisor owes HOST_RETURN or HOST_FAIL
    LOADING_MEMORY = 5  # the worker owes the answer to a host function's memory access
    IDLE = 6
    RESOLVING = 7  # RESOLVE has no answer: the first call of the export follows it at once
    MEMORY = 8  # the worker owes MEM_DATA, MEM_DONE or ERROR
    CALLING = 9
    CALLING_HOST = 10
    CALLING_MEMORY = 11
    BATCH = 12
    BATCH_HOST = 13
    BATCH_MEMORY = 14
    BATCH_FAILED = 15  # RESULTS said that a row failed: the worker owes ERROR
    COMPILING = 16
    COMPILED = 17  # the compiler owes ARTIFACT frames
    GONE = 18  # nothing more is legal
    STARTING_LOAD = 19  # LOAD was sent ahead of READY, which saves a fresh worker a round trip
    STARTING_COMPILE = 20
    CALLING_FAILED = 21  # a pd_log failed: HOST_FAIL is under way to a worker that may be anywhere
    LOADING_STREAM = 22  # the supervisor owes STREAM_REPLY or HOST_FAIL
    CALLING_STREAM = 23
    BATCH_STREAM = 24
    ADDING = 25  # one more LOAD: as LOADING, but when it fails the worker lives on with the instances that it has
    ADDING_HOST = 26
    ADDING_MEMORY = 27
    ADDING_STREAM = 28
    GROWING = 29  # the worker owes MEM_GROWN or ERROR


S = State


def _host_rows(running: State, host: State, memory: State) -> dict[tuple[State, int], State]:
    """A host call inside `running`, with the memory accesses that the function may make."""
    return {
        (running, m.HOST_CALL): host,
        (host, m.HOST_RETURN): running,
        (host, m.HOST_FAIL): running,
        (host, m.MEM_READ): memory,
        (host, m.MEM_WRITE): memory,
        (memory, m.MEM_DATA): host,
        (memory, m.MEM_DONE): host,
        (memory, m.ERROR): host,
    }


def _stream_rows(running: State, waiting: State) -> dict[tuple[State, int], State]:
    """What WASI asks inside `running`: what is captured of the guest's streams is not answered."""
    asked = m.OF_WASI - {m.STREAM_OUT}
    answered = (m.STREAM_REPLY, m.HOST_FAIL)
    return {
        (running, m.STREAM_OUT): running,
        **{(running, kind): waiting for kind in asked},
        **{(waiting, kind): running for kind in answered},
    }


#: (state, message kind) -> next state. What is not here breaks the protocol.
TABLE: Final[dict[tuple[State, int], State]] = {
    (S.STARTING, m.READY): S.FRESH,
    (S.STARTING, m.LOAD): S.STARTING_LOAD,
    (S.STARTING, m.COMPILE): S.STARTING_COMPILE,
    (S.STARTING_LOAD, m.READY): S.LOADING,
    (S.STARTING_COMPILE, m.READY): S.COMPILING,
    (S.FRESH, m.LOAD): S.LOADING,
    (S.LOADING, m.LOADED): S.IDLE,
    (S.LOADING, m.ERROR): S.GONE,
    **_host_rows(S.LOADING, S.LOADING_HOST, S.LOADING_MEMORY),
    **_stream_rows(S.LOADING, S.LOADING_STREAM),
    (S.IDLE, m.LOAD): S.ADDING,
    (S.ADDING, m.LOADED): S.IDLE,
    (S.ADDING, m.ERROR): S.IDLE,
    **_host_rows(S.ADDING, S.ADDING_HOST, S.ADDING_MEMORY),
    **_stream_rows(S.ADDING, S.ADDING_STREAM),
    (S.IDLE, m.DROP): S.IDLE,
    (S.IDLE, m.STREAM_TAKEN): S.IDLE,
    (S.IDLE, m.RESOLVE): S.RESOLVING,
    (S.RESOLVING, m.CALL): S.CALLING,
    (S.RESOLVING, m.CALL_MANY): S.BATCH,
    (S.IDLE, m.MEM_READ): S.MEMORY,
    (S.IDLE, m.MEM_WRITE): S.MEMORY,
    (S.MEMORY, m.MEM_DATA): S.IDLE,
    (S.MEMORY, m.MEM_DONE): S.IDLE,
    (S.MEMORY, m.ERROR): S.IDLE,
    (S.IDLE, m.MEM_GROW): S.GROWING,
    (S.GROWING, m.MEM_GROWN): S.IDLE,
    (S.GROWING, m.ERROR): S.IDLE,
    (S.IDLE, m.CALL): S.CALLING,
    (S.CALLING, m.RESULT): S.IDLE,
    (S.CALLING, m.ERROR): S.IDLE,
    (S.CALLING, m.HOST_LOG): S.CALLING,
    (S.CALLING, m.HOST_FAIL): S.CALLING_FAILED,
    (S.CALLING_FAILED, m.HOST_LOG): S.CALLING_FAILED,
    **{(S.CALLING_FAILED, kind): S.CALLING_FAILED for kind in (m.HOST_CALL, *m.OF_WASI)},
    (S.CALLING_FAILED, m.RESULT): S.IDLE,
    (S.CALLING_FAILED, m.ERROR): S.IDLE,
    **_host_rows(S.CALLING, S.CALLING_HOST, S.CALLING_MEMORY),
    **_stream_rows(S.CALLING, S.CALLING_STREAM),
    (S.IDLE, m.CALL_MANY): S.BATCH,
    (S.BATCH, m.RESULTS): S.IDLE,
    (S.BATCH_FAILED, m.ERROR): S.IDLE,
    **_host_rows(S.BATCH, S.BATCH_HOST, S.BATCH_MEMORY),
    **_stream_rows(S.BATCH, S.BATCH_STREAM),
    (S.FRESH, m.COMPILE): S.COMPILING,
    (S.COMPILING, m.COMPILED): S.COMPILED,
    (S.COMPILING, m.ERROR): S.GONE,
    (S.COMPILED, m.ARTIFACT): S.COMPILED,
}


class Orders:
    """The state of one conversation. `advance` checks a message that is sent or was received and moves on."""

    __slots__ = ("state",)

    def __init__(self, state: State = State.STARTING) -> None:
        self.state = state

    def advance(self, kind: int, *, failed: bool = False) -> None:
        """Move by a message of `kind`; ProtocolError when it is not legal now. `failed` is RESULTS' own flag."""
        after = TABLE.get((self.state, kind))
        if after is None:
            raise ProtocolError(f"message kind {kind} is not legal in state {self.state.name}")
        self.state = S.BATCH_FAILED if failed and kind == m.RESULTS else after

    def legal(self, kind: int) -> bool:
        """Whether a message of `kind` may come now."""
        return (self.state, kind) in TABLE
