"""Every message between supervisor and worker or compiler, under one name, and by its kind.

`decode` takes what a hostile peer may have written and gives a message or raises `ProtocolError`.
"""

from __future__ import annotations

from typing import Final

from .codec import ProtocolError
from .layout import ARTIFACT as ARTIFACT
from .layout import ASIDES as ASIDES
from .layout import CALL as CALL
from .layout import CALL_LAYOUT as CALL_LAYOUT
from .layout import CALL_MANY as CALL_MANY
from .layout import CALL_MANY_LAYOUT as CALL_MANY_LAYOUT
from .layout import CHUNK_BYTES as CHUNK_BYTES
from .layout import COMPILE as COMPILE
from .layout import COMPILED as COMPILED
from .layout import CONTINUED as CONTINUED
from .layout import DROP as DROP
from .layout import ERROR as ERROR
from .layout import FREE as FREE
from .layout import HOST_CALL as HOST_CALL
from .layout import HOST_CALL_LAYOUT as HOST_CALL_LAYOUT
from .layout import HOST_FAIL as HOST_FAIL
from .layout import HOST_LOG as HOST_LOG
from .layout import HOST_RETURN as HOST_RETURN
from .layout import LINK_TIMES as LINK_TIMES
from .layout import LOAD as LOAD
from .layout import LOADED as LOADED
from .layout import MAX_AHEAD as MAX_AHEAD
from .layout import MAX_FRAMES as MAX_FRAMES
from .layout import MAX_OFFERS as MAX_OFFERS
from .layout import MEM_DATA as MEM_DATA
from .layout import MEM_DONE as MEM_DONE
from .layout import MEM_GROW as MEM_GROW
from .layout import MEM_GROWN as MEM_GROWN
from .layout import MEM_READ as MEM_READ
from .layout import MEM_WRITE as MEM_WRITE
from .layout import OF_WASI as OF_WASI
from .layout import PD_NAMES as PD_NAMES
from .layout import READY as READY
from .layout import RESOLVE as RESOLVE
from .layout import RESULT as RESULT
from .layout import RESULT_LAYOUT as RESULT_LAYOUT
from .layout import RESULTS as RESULTS
from .layout import RESULTS_LAYOUT as RESULTS_LAYOUT
from .layout import SMALL_CAP as SMALL_CAP
from .layout import SPIN as SPIN
from .layout import STREAM_OUT as STREAM_OUT
from .layout import STREAM_POLL as STREAM_POLL
from .layout import STREAM_READ as STREAM_READ
from .layout import STREAM_REPLY as STREAM_REPLY
from .layout import STREAM_TAKEN as STREAM_TAKEN
from .layout import STREAM_WRITE as STREAM_WRITE
from .layout import WHERE as WHERE
from .layout import Failure as Failure
from .layout import Message as Message
from .layout import Where as Where
from .layout import artifact_cap as artifact_cap
from .replies import Artifact as Artifact
from .replies import Compiled as Compiled
from .replies import Error as Error
from .replies import HostCall as HostCall
from .replies import HostLog as HostLog
from .replies import Loaded as Loaded
from .replies import MemData as MemData
from .replies import MemDone as MemDone
from .replies import MemGrown as MemGrown
from .replies import Ready as Ready
from .replies import Result as Result
from .replies import Results as Results
from .requests import MEM_WRITE_HEAD as MEM_WRITE_HEAD
from .requests import Call as Call
from .requests import CallMany as CallMany
from .requests import Compile as Compile
from .requests import Drop as Drop
from .requests import HostFail as HostFail
from .requests import HostReturn as HostReturn
from .requests import Load as Load
from .requests import MemGrow as MemGrow
from .requests import MemRead as MemRead
from .requests import MemWrite as MemWrite
from .requests import OfferSpec as OfferSpec
from .requests import Resolve as Resolve
from .wasi import FOREVER as FOREVER
from .wasi import LINK_LAYOUT as LINK_LAYOUT
from .wasi import STREAM_BYTES as STREAM_BYTES
from .wasi import STREAM_LAYOUT as STREAM_LAYOUT
from .wasi import STREAMS as STREAMS
from .wasi import DirSpec as DirSpec
from .wasi import LinkTimes as LinkTimes
from .wasi import StreamOut as StreamOut
from .wasi import StreamPoll as StreamPoll
from .wasi import StreamRead as StreamRead
from .wasi import StreamReply as StreamReply
from .wasi import StreamSpec as StreamSpec
from .wasi import StreamTaken as StreamTaken
from .wasi import StreamWrite as StreamWrite
from .wasi import WasiSpec as WasiSpec

#: Every message by its kind.
MESSAGES: Final[dict[int, type[Message]]] = {
    cls.KIND: cls
    for cls in (
        Load, Resolve, Call, CallMany, MemRead, MemWrite, HostReturn, HostFail, Compile,
        Ready, Loaded, Result, Results, Error, HostCall, HostLog, MemData, MemDone, Compiled, Artifact,
        StreamReply, StreamTaken, StreamOut, StreamWrite, StreamRead, StreamPoll, LinkTimes,
        Drop, MemGrow, MemGrown,
    )
}  # fmt: skip


def decode(kind: int, payload: bytes | memoryview) -> Message:
    """The message of `kind`; ProtocolError for an unknown kind or a payload that is not one."""
    cls = MESSAGES.get(kind)
    if cls is None:
        raise ProtocolError(f"unknown message kind {kind}")
    return cls.decode(payload)
