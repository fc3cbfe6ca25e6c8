"""Hypothesis strategies for every message and packet, with text and names as a hostile guest would choose them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, FuncType, GlobalType, ImportType, MemoryType, TableType, TagType
from pdsandbox.hardening import Layer, State
from pdsandbox.protocol import control as c
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.metadata import MAX_TYPES, TYPE_NAMES
from pdsandbox.slots import SLOT_BYTES

#: The same examples in every run, and no verdict that depends on how busy the machine is.
WIRE = settings(derandomize=True, deadline=None, database=None, max_examples=60)

HOSTILE = (
    "\0",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202egnp.exe",
    "a\r\nb\x85\u2028",
    "{0.__class__} %s%n $(id)",
    "\ufeff\ufffe\uffff\U0010ffff",
    "e" + "\u0301" * 50,
    "x" * 100_000,
)

u8 = st.integers(0, 2**8 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
count = st.none() | st.integers(0, 2**63 - 1)
blob = st.binary(max_size=40)
text = st.text(max_size=20) | st.sampled_from(HOSTILE)
# Every byte string is a path; those that are no UTF-8 hold surrogates.
path = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def some(item: st.SearchStrategy, most: int = 4) -> st.SearchStrategy:
    return st.lists(item, max_size=most).map(tuple)


def slots_of(number: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=number * SLOT_BYTES, max_size=number * SLOT_BYTES)


value_type = st.sampled_from(TYPE_NAMES)
value_types = some(value_type, 6) | value_type.map(lambda name: (name,) * MAX_TYPES)
slots = st.integers(0, 4).flatmap(slots_of)
func_type = st.builds(FuncType, value_types, value_types)
extern_types = {
    FuncType: func_type,
    MemoryType: st.builds(MemoryType, u64, st.none() | u64, st.booleans(), st.booleans(), u32),
    TableType: st.builds(TableType, value_type, u64, st.none() | u64),
    GlobalType: st.builds(GlobalType, value_type, st.booleans()),
    TagType: st.builds(TagType, value_types),
}
extern = st.one_of(*extern_types.values())
backtrace_frame = st.builds(Frame, u32, st.none() | text, st.none() | text, u64, u64)
where = st.integers(0, m.Where.COUNT - 1)
pd = st.integers(0, len(m.PD_NAMES) - 1)
name = blob | text.map(str.encode)
# In a LOAD they are numbered by their order.
ahead = st.builds(m.Resolve, func_type, name)
offer = st.builds(m.OfferSpec, text, text, func_type, where, pd, u32, blob)

stream = st.builds(m.StreamSpec, st.booleans(), st.booleans(), st.booleans(), u64, blob)
directory = st.builds(m.DirSpec, blob, st.booleans(), count)
wasi = st.builds(
    m.WasiSpec,
    some(blob),
    some(blob),
    st.none() | st.tuples(u64, u64),
    st.none() | u64,
    st.tuples(stream, stream, stream),
    some(directory),
)
of_stream = (u32, blob)


@st.composite
def rows_of_slots(draw: st.DrawFn, most_rows: int = 3) -> tuple[int, int, bytes]:
    """(rows, width, slots). A function of nothing has rows of no slots, of which there may be any number."""
    width = draw(st.integers(0, 3))
    rows = draw(st.integers(0, most_rows) if width else u32)
    return rows, width, draw(slots_of(rows * width))


@st.composite
def call_many(draw: st.DrawFn) -> m.CallMany:
    return m.CallMany(draw(u32), draw(u32), draw(u64), draw(u64), *draw(rows_of_slots()))


@st.composite
def results(draw: st.DrawFn) -> m.Results:
    done, width, data = draw(rows_of_slots())
    return m.Results(draw(u64), done, width, draw(st.booleans()), data, draw(u64), draw(u64))


MESSAGES: dict[type[m.Message], st.SearchStrategy[m.Message]] = {
    m.Load: st.builds(m.Load, count, u64, some(offer), some(path), some(ahead), st.none() | wasi, u32, u32),
    m.Resolve: st.builds(m.Resolve, func_type, name, u32, u32),
    m.Call: st.builds(m.Call, u32, u32, u64, u64, slots),
    m.CallMany: call_many(),
    m.MemRead: st.builds(m.MemRead, u64, u64, u64, u32),
    m.MemWrite: st.builds(m.MemWrite, u64, u64, blob, u32),
    m.MemGrow: st.builds(m.MemGrow, u64, u32),
    m.HostReturn: st.builds(m.HostReturn, slots),
    m.HostFail: st.builds(m.HostFail),
    m.StreamReply: st.builds(m.StreamReply, *of_stream),
    m.StreamTaken: st.builds(m.StreamTaken, u32),
    m.Drop: st.builds(m.Drop, u32),
    m.StreamOut: st.builds(m.StreamOut, *of_stream),
    m.StreamWrite: st.builds(m.StreamWrite, *of_stream),
    m.StreamRead: st.builds(m.StreamRead, *of_stream),
    m.StreamPoll: st.builds(m.StreamPoll, *of_stream),
    m.LinkTimes: st.builds(m.LinkTimes, *of_stream),
    m.Compile: st.builds(m.Compile, st.booleans(), blob),
    m.Ready: st.builds(m.Ready),
    m.Loaded: st.builds(m.Loaded, u64, u64, u64),
    m.Result: st.builds(m.Result, u64, slots, u64, u64),
    m.Results: results(),
    m.Error: st.builds(
        m.Error,
        st.integers(0, m.Failure.COUNT - 1),
        u64,
        count,
        count,
        u32,
        text,
        some(backtrace_frame) | backtrace_frame.map(lambda one: (one,) * m.MAX_FRAMES),
        u64,
        u64,
    ),
    m.HostCall: st.builds(m.HostCall, u32, slots, blob, blob, u64, u64),
    m.HostLog: st.builds(m.HostLog, u32, slots, blob, blob, u64, u64),
    m.MemData: st.builds(m.MemData, blob),
    m.MemDone: st.builds(m.MemDone),
    m.MemGrown: st.builds(m.MemGrown, st.integers(-1, 2**63 - 1), u64, u64),
    m.Compiled: st.builds(
        m.Compiled,
        u64,
        some(st.builds(ImportType, text, text, extern)),
        some(st.builds(ExportType, text, extern)),
    ),
    m.Artifact: st.builds(m.Artifact, blob),
}

role = st.integers(0, c.Role.COUNT - 1)
PACKETS: dict[type, st.SearchStrategy[c.Packet]] = {
    c.Config: st.builds(
        c.Config,
        path,
        st.booleans(),
        st.booleans(),
        u64,
        count,
        count,
        count,
        u32,
        count,
        count,
        count,
        u64,
        st.frozensets(st.sampled_from(Layer)),
        count,
        count,
        path,
        count,
        count,
        u32,
    ),
    c.Spawn: st.builds(c.Spawn, u64, role, st.booleans(), path),
    c.Acknowledge: st.builds(c.Acknowledge, u64),
    c.Kill: st.builds(c.Kill, u64),
    c.Hello: st.builds(
        c.Hello,
        u32,
        some(st.builds(c.Seen, role, st.sampled_from(Layer), st.sampled_from(State), text)),
    ),
    c.Spawned: st.builds(c.Spawned, u64, u32),
    c.Refused: st.builds(c.Refused, u64, u32),
    c.Exited: st.builds(c.Exited, u64, count.filter(lambda n: n is not None), st.none())
    | st.builds(c.Exited, u64, st.none(), count.filter(lambda n: n is not None)),
}
