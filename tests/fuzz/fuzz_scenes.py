"""What the fuzzed guests are: their types, host functions that do what their argument says, and scenes to damage.

A scene is a program for the honest peer (see `fuzz_peer.Honest`) and the operations that the user does meanwhile.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

from fuzz_mutations import MEMORY_AT, MEMORY_BYTES

from pdsandbox import HostFunction, Limits, Wasi, WasmImports
from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, FuncType, ImportType, MemoryType
from pdsandbox.protocol import messages as m

FUEL = 10_000
#: Never reached: silence is cut short by the peer, so only a hang would be told so.
WALL_S = 60.0
LIMITS = Limits(
    fuel=FUEL, wall_s=WALL_S, rss_bytes=None, message_bytes=4 << 10, host_calls=8, host_call_bytes=128 << 10
)
BIG = (1 << 20) + 5  # takes two messages
OUTSIDE = MEMORY_BYTES - 2

EXPORTS = {
    "one": FuncType(("i32", "i32"), ("i32",)),
    "none": FuncType((), ()),
    "wide": FuncType(("i64",), ("f64", "i64", "f32", "i32")),
}
PLAIN = FuncType(("i32",), ("i64",))
PD_SEND = FuncType(("i32",) * 4, ("i32",))
PD_LOG = FuncType(("i32",) * 3, ())
PD_NOW = FuncType((), ("i64",))
EXPORT_TYPES = (
    *(ExportType(name, type_) for name, type_ in EXPORTS.items()),
    ExportType("memory", MemoryType(1)),
    ExportType("vector", FuncType(("v128",), ())),
)
IMPORT_TYPES = (
    ImportType("h", "plain", PLAIN),
    ImportType("env", "pd_send", PD_SEND),
    ImportType("env", "pd_log", PD_LOG),
    ImportType("env", "pd_now_micros", PD_NOW),
)
#: By the number under which a worker knows them.
HOST_TYPES = [item.type for item in IMPORT_TYPES]
RETURNED = 7

#: What `plain` does with the guest's memory, by its argument modulo 16: ("read" or "write", offset, length) each.
ERRANDS: dict[int, list[tuple[str, int, int]]] = {
    2: [("read", 16, 100)],
    3: [("read", 5, BIG)],
    4: [("write", 16, 100)],
    5: [("write", 5, BIG)],
    6: [("read", OUTSIDE, 100)],
    7: [("write", OUTSIDE, 100), ("read", 0, 1)],
    8: [("read", 0, 0), ("write", 3, 0), ("read", 1, 2)],
    9: [("read", 16, 100), ("write", 16, 100)],
}
RAISES, RETURNS_NONSENSE, SWALLOWS = 1, 10, (7, 9)


class Untold(Exception):
    """What a host function raises: its text must reach nobody but the caller's chain."""


def plain(caller: Any, value: int) -> Any:
    """The host function; see ERRANDS."""
    what = value % 16
    for errand, offset, size in ERRANDS.get(what, []):
        try:
            if errand == "read":
                assert len(caller.memory_read(offset, size)) == size
            else:
                caller.memory_write(offset, bytes(size))
        except BaseException:
            if what not in SWALLOWS:
                raise
    if what == RAISES:
        raise Untold("\x1b[2J a host's secret")
    return "nonsense" if what == RETURNS_NONSENSE else RETURNED


def pd_send(envelope: bytes, payload: bytes) -> int:
    if envelope.startswith(b"\0"):
        raise Untold
    return len(payload)


def pd_log(_level: int, message: bytes) -> None:
    if message.startswith(b"\0"):
        raise Untold


#: What is kept of standard output.
CAPTURED = 20
#: A read of so many bytes raises.
UNREADABLE = 13


class Stdin:
    """Never at its end."""

    def read(self, most: int) -> bytes:
        if most == UNREADABLE:
            raise Untold
        return b"z" * most


def stderr(data: bytes) -> None:
    if data.startswith(b"\0"):
        raise Untold


def wasi() -> Wasi:
    """Standard output captured, the others led to functions."""
    return Wasi(args=("prog",), stdin=Stdin(), stdout_bytes=CAPTURED, stderr=stderr)


def imports() -> WasmImports:
    return WasmImports(
        pd_send=pd_send,
        pd_log=pd_log,
        pd_now_micros=lambda: 2**64 - 1,
        functions={("h", "plain"): HostFunction(plain, PLAIN.params, PLAIN.results)},
    )


# --- frames of an honest worker ---


def _slots(*values: int) -> bytes:
    return b"".join(struct.pack("<q8x", value) for value in values)


def calls(argument: int) -> bytes:
    """The guest calls `plain`."""
    return m.HostCall(0, _slots(argument), base=MEMORY_AT, size=MEMORY_BYTES).frame()


THERE = {"base": MEMORY_AT, "size": MEMORY_BYTES}
LOADED = m.Loaded(3, **THERE).frame()
ONE = m.Result(11, _slots(42), **THERE).frame()
NONE = m.Result(0, b"").frame()  # from here on nobody said where memory is
WIDE = m.Result(12, _slots(1, -2, 0x7FC00001, 4), **THERE).frame()
FRAMES = (Frame(3, "f\x1b[2J", None, 1, 2), Frame(0, None, "m", 0, 0))
TRAP = m.Error(m.Failure.TRAP, 5, trap_code=9, frames=FRAMES, **THERE).frame()
SENDS = m.HostCall(1, _slots(0, 1, 1, 2), b"to", b"hello").frame()
#: While loading and in batches a log is a host call like any other.
WAITS_FOR_LOG = m.HostCall(2, _slots(1, 0, 2), b"hi").frame()
WAITS_FOR_BAD_LOG = m.HostCall(2, _slots(1, 0, 2), b"\0!").frame()
LOGS = m.HostLog(2, _slots(1, 0, 2), b"hi").frame()
BAD_LOG = m.HostLog(2, _slots(1, 0, 2), b"\0!").frame()
ASKS_TIME = m.HostCall(3, b"").frame()
OUT = m.StreamOut(1, b"hello\n").frame()
FULL = m.StreamOut(1, b"x" * (CAPTURED + 1)).frame()
WRITES = m.StreamWrite(2, b"error\n").frame()
BAD_WRITE = m.StreamWrite(2, b"\0!").frame()
READS = m.StreamRead(4096).frame()
BAD_READ = m.StreamRead(UNREADABLE).frame()
POLLS = m.StreamPoll(m.FOREVER, bytes((1, 0, 0))).frame()
ROWS = [[1, 2], [3, 4], [5, 6]]


def _rows(*values: int, failed: bool = False) -> bytes:
    return m.Results(7, len(values), 2, failed, b"".join(_slots(v, 0) for v in values), **THERE).frame()


ROWS_DONE = _rows(42, 43, 44)
#: Two messages: the first takes as many rows as `message_bytes` holds.
MANY = [[1, 2]] * 130


def _error(failure: int, text: str = "", **fields: Any) -> bytes:
    return m.Error(failure, text=text, **fields).frame()


@dataclasses.dataclass(frozen=True)
class Scene:
    """`programs`: what the peer does on LOAD and on each call after it; `operations`: (method, *arguments)."""

    programs: list[list[bytes]]
    operations: list[tuple[Any, ...]]
    interruptible: bool = False
    broken: bool = False  # the program itself breaks the protocol
    wasi: bool = False


CALL_ONE = ("call", "one", [1, 2])
SCENES: dict[str, Scene] = {
    "loading": Scene([[LOADED]], []),
    "a start function that calls": Scene([[calls(0), calls(2), SENDS, LOADED]], []),
    "a start function that fails": Scene([[_error(m.Failure.START_TRAP, "active segment", trap_code=1)]], []),
    "a start function whose host function raises": Scene([[calls(RAISES)]], []),
    "a link error": Scene([[_error(m.Failure.LINK, "unknown import: \x1b")]], []),
    "calls": Scene([[LOADED], [ONE], [NONE], [WIDE]], [CALL_ONE, ("call", "none", []), ("call", "wide", [5])]),
    "a trap": Scene([[LOADED], [TRAP], [ONE]], [CALL_ONE, CALL_ONE]),
    "other failures": Scene(
        [
            [LOADED],
            [_error(m.Failure.FUEL, fuel=9)],
            [_error(m.Failure.MEMORY)],
            [_error(m.Failure.CALL, "why")],
            [ONE],
        ],
        [CALL_ONE, CALL_ONE, ("set_fuel", 50), CALL_ONE, CALL_ONE],
    ),
    "host calls": Scene([[LOADED], [calls(0), SENDS, WAITS_FOR_LOG, LOGS, ASKS_TIME, calls(4), ONE]], [CALL_ONE]),
    "host calls that follow closely": Scene(
        [[LOADED], [calls(0), calls(0), calls(2), ASKS_TIME, calls(9), calls(4), ONE], [calls(0), calls(7), ONE]],
        [CALL_ONE, CALL_ONE],
    ),
    "one of many host calls raises": Scene([[LOADED], [*[calls(0)] * 3, calls(RAISES)], [ONE]], [CALL_ONE, CALL_ONE]),
    "more host calls than are allowed": Scene([[LOADED], [*[calls(0)] * 9, ONE]], [CALL_ONE], broken=True),
    "nested reads and writes": Scene([[LOADED], [calls(2), calls(9), calls(8), ONE]], [CALL_ONE]),
    "large nested accesses": Scene([[LOADED], [calls(3), calls(5), NONE], [NONE]], [("call", "none", [])] * 2),
    "nested accesses outside": Scene([[LOADED], [calls(7), calls(6)], [ONE]], [CALL_ONE, CALL_ONE]),
    "a host function raises": Scene([[LOADED], [calls(RAISES)], [ONE]], [CALL_ONE, CALL_ONE]),
    "a host function returns nonsense": Scene([[LOADED], [calls(RETURNS_NONSENSE)], [ONE]], [CALL_ONE, CALL_ONE]),
    "a batch": Scene([[LOADED], [ROWS_DONE], [ONE]], [("call_many", "one", ROWS), CALL_ONE]),
    "a long batch": Scene([[LOADED], [_rows(*range(128))], [_rows(128, 129)]], [("call_many", "one", MANY), CALL_ONE]),
    "a batch of host calls": Scene([[LOADED], [calls(0), calls(2), ROWS_DONE]], [("call_many", "one", ROWS)]),
    "a batch whose host function raises": Scene(
        [[LOADED], [calls(RAISES)], [ONE]], [("call_many", "one", ROWS), CALL_ONE]
    ),
    "a row fails": Scene(
        [[LOADED], [_rows(42, failed=True), _error(m.Failure.TRAP, trap_code=7)], [ONE]],
        [("call_many", "one", ROWS), CALL_ONE],
    ),
    "memory": Scene(
        [[LOADED], [ONE]],
        [("memory_read", 16, 100), ("memory_write", 16, bytes(100)), ("memory_read", OUTSIDE, 9), CALL_ONE],
    ),
    "memory after calls": Scene(
        [[LOADED], [TRAP], [ROWS_DONE], [NONE]],
        [
            CALL_ONE,
            ("memory_write", OUTSIDE, bytes(3)),
            ("memory_read", 16, 0),
            ("call_many", "one", ROWS),
            ("memory_read", 16, 100),
            ("call", "none", []),
            ("memory_read", 16, 100),
            ("memory_write", OUTSIDE, bytes(2)),
        ],
    ),
    "memory grows": Scene(
        [[LOADED], [NONE]],
        [
            ("memory_grow", 3),
            ("memory_read", 16, 100),
            ("call", "none", []),
            ("memory_grow", 2**64 - 1),
            ("memory_write", OUTSIDE, bytes(3)),
        ],
    ),
    "logs": Scene([[LOADED], [LOGS, LOGS, ONE], [LOGS, calls(0), LOGS, SENDS, LOGS, ONE]], [CALL_ONE, CALL_ONE]),
    "logs, then a trap": Scene([[LOADED], [LOGS, LOGS, TRAP], [ONE]], [CALL_ONE, CALL_ONE]),
    "a log fails": Scene([[LOADED], [LOGS, BAD_LOG, ONE], [ONE]], [CALL_ONE, CALL_ONE]),
    "a log fails before others": Scene([[LOADED], [BAD_LOG, LOGS, BAD_LOG, ONE], [LOGS, ONE]], [CALL_ONE, CALL_ONE]),
    "a log fails before a host call": Scene(
        [[LOADED], [BAD_LOG, LOGS, calls(0), ONE], [calls(2), ONE]], [CALL_ONE, CALL_ONE]
    ),
    "a log fails before a trap": Scene([[LOADED], [BAD_LOG, TRAP], [NONE]], [CALL_ONE, ("call", "none", [])]),
    "a log fails before the end of fuel": Scene(
        [[LOADED], [BAD_LOG, _error(m.Failure.FUEL, fuel=9)], [ROWS_DONE]], [CALL_ONE, ("call_many", "one", ROWS)]
    ),
    "a log fails before a limit": Scene(
        [[LOADED], [BAD_LOG, _error(m.Failure.HOST_LIMIT, "over", limit=8)], [ONE]],
        [CALL_ONE, ("memory_read", 16, 100), CALL_ONE],
    ),
    "a log fails, and then nothing": Scene([[LOADED], [BAD_LOG]], [CALL_ONE]),
    "a log fails after a host call": Scene([[LOADED], [calls(4), BAD_LOG, ONE], [ONE]], [CALL_ONE, CALL_ONE]),
    "a start function that logs": Scene([[WAITS_FOR_LOG, WAITS_FOR_LOG, LOADED]], []),
    "a start function whose log fails": Scene([[WAITS_FOR_BAD_LOG]], []),
    "a batch that logs": Scene(
        [[LOADED], [WAITS_FOR_LOG, WAITS_FOR_LOG, ROWS_DONE], [ONE]], [("call_many", "one", ROWS), CALL_ONE]
    ),
    "a batch whose log fails": Scene(
        [[LOADED], [WAITS_FOR_LOG, WAITS_FOR_BAD_LOG], [ONE]], [("call_many", "one", ROWS), CALL_ONE]
    ),
    "a log while loading": Scene([[LOGS, LOADED]], [], broken=True),
    "a log in a batch": Scene([[LOADED], [LOGS, ROWS_DONE]], [("call_many", "one", ROWS)], broken=True),
    "a log that is none": Scene([[LOADED], [m.HostLog(0, _slots(0)).frame(), ONE]], [CALL_ONE], broken=True),
    "a send that is a log": Scene(
        [[LOADED], [m.HostLog(1, _slots(0, 1, 1, 2), b"to", b"hello").frame(), ONE]], [CALL_ONE], broken=True
    ),
    "bytes that a function does not take": Scene(
        [[LOADED], [m.HostCall(0, _slots(0), b"x").frame(), ONE]], [CALL_ONE], broken=True
    ),
    "bytes with the time": Scene([[LOADED], [m.HostCall(3, b"", b"", b"x").frame(), ONE]], [CALL_ONE], broken=True),
    "bytes that it does not take, at last": Scene(
        [[LOADED], [calls(0), calls(0), m.HostCall(0, _slots(0), b"", b"x").frame(), ONE]], [CALL_ONE], broken=True
    ),
    "two messages in a log": Scene(
        [[LOADED], [m.HostLog(2, _slots(1, 0, 2), b"a", b"b").frame(), ONE]], [CALL_ONE], broken=True
    ),
    "more logs than are allowed": Scene([[LOADED], [LOGS] * 9 + [ONE]], [CALL_ONE], broken=True),
    "more logs than are allowed, after one failed": Scene(
        [[LOADED], [BAD_LOG] + [LOGS] * 8 + [ONE]], [CALL_ONE], broken=True
    ),
    "interrupted after a log failed": Scene([[LOADED], [BAD_LOG], [ONE]], [CALL_ONE, CALL_ONE], interruptible=True),
    "streams": Scene(
        [[OUT, READS, WRITES, LOADED], [OUT, WRITES, READS, OUT, ONE], [OUT, ROWS_DONE]],
        [CALL_ONE, ("output",), ("call_many", "one", ROWS), ("output",)],
        wasi=True,
    ),
    "streams, then a trap": Scene(
        [[LOADED], [OUT, READS, TRAP], [OUT, ONE]], [CALL_ONE, CALL_ONE, ("output",)], wasi=True
    ),
    "output to its cap": Scene(
        [[LOADED], [FULL, ONE], [FULL, ONE]], [CALL_ONE, ("output",), CALL_ONE, ("output",)], wasi=True
    ),
    "a write that fails": Scene([[LOADED], [OUT, BAD_WRITE], [OUT, ONE]], [CALL_ONE, CALL_ONE, ("output",)], wasi=True),
    "a read that fails": Scene([[LOADED], [BAD_READ], [ONE]], [CALL_ONE, CALL_ONE], wasi=True),
    "a start function whose write fails": Scene([[OUT, BAD_WRITE]], [], wasi=True),
    "a batch whose read fails": Scene(
        [[LOADED], [OUT, BAD_READ], [ONE]], [("call_many", "one", ROWS), CALL_ONE], wasi=True
    ),
    "a log fails before output": Scene(
        [[LOADED], [OUT, BAD_LOG, OUT, FULL, READS, ONE], [OUT, ONE]], [CALL_ONE, CALL_ONE, ("output",)], wasi=True
    ),
    "output of who has no streams": Scene([[LOADED], [OUT, ONE]], [CALL_ONE], broken=True),
    "a read of who has no streams": Scene([[LOADED], [READS, ONE]], [CALL_ONE], broken=True),
    "more output than is captured": Scene([[LOADED], [OUT, FULL, ONE]], [CALL_ONE], broken=True, wasi=True),
    "a poll of what cannot be waited for": Scene([[LOADED], [POLLS, ONE]], [CALL_ONE], broken=True, wasi=True),
    "large memory": Scene([[LOADED], [ONE]], [("memory_read", 1, BIG), ("memory_write", 1, bytes(BIG)), CALL_ONE]),
    "interrupted": Scene([[LOADED], []], [CALL_ONE], interruptible=True),
}
