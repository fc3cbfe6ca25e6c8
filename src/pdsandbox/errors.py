"""Every error a caller can see: one class per verdict, a cause, and the facts as data.

Texts follow the `Display` of the Rust enum `WasmError` in the Palladium plugin layer. Two errors are equal
when class and message are. Constructors are uniform so that every error pickles and copies unchanged. This
module holds data only: who decides which error it is lives in the supervisor's monitor.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "CallError",
    "Cause",
    "CompileError",
    "Frame",
    "FuelExhausted",
    "GuestExit",
    "InstantiationError",
    "MemoryAccessError",
    "PoolFull",
    "PoolTimeout",
    "Quarantined",
    "RssExceeded",
    "Trap",
    "TrapCode",
    "WallClockExceeded",
    "WasmError",
    "WorkerCrashed",
]


class Cause(enum.Enum):
    """What ended the work, whatever class the error has. The first cause wins."""

    GUEST_TRAP = "guest_trap"  #: the guest executed something that traps
    GUEST_EXIT = "guest_exit"  #: the guest called `proc_exit`
    MEMORY = "memory"  #: an access outside linear memory
    FUEL = "fuel"  #: the fuel budget is used up
    WALL = "wall"  #: a wall-clock deadline passed
    RSS = "rss"  #: resident memory went over its limit
    SIGNAL = "signal"  #: a worker died by a signal that we did not send
    EXIT = "exit"  #: a worker exited by itself
    PROTOCOL = "protocol"  #: a worker broke the wire protocol
    HOST_FUNCTION = "host_function"  #: a host function raised, or a guest called host functions beyond a limit
    USAGE = "usage"  #: the caller asked for what cannot be
    COMPILE = "compile"  #: the module is invalid, or over a compile limit
    LINK = "link"  #: imports, memories or tables do not fit
    CLOSED = "closed"  #: used after close
    CANCELLED = "cancelled"  #: the caller left, or called kill()
    HOST = "host"  #: this machine failed us: fork refused, out of fds or disk, fork server gone


class TrapCode(enum.Enum):
    """Why a guest trapped; names and numbers as in wasmtime's C API (`wasmtime/trap.h`)."""

    STACK_OVERFLOW = 0
    MEMORY_OUT_OF_BOUNDS = 1
    HEAP_MISALIGNED = 2
    TABLE_OUT_OF_BOUNDS = 3
    INDIRECT_CALL_TO_NULL = 4
    BAD_SIGNATURE = 5
    INTEGER_OVERFLOW = 6
    INTEGER_DIVISION_BY_ZERO = 7
    BAD_CONVERSION_TO_INTEGER = 8
    UNREACHABLE = 9
    INTERRUPT = 10
    OUT_OF_FUEL = 11
    ATOMIC_WAIT_NON_SHARED_MEMORY = 12
    NULL_REFERENCE = 13
    ARRAY_OUT_OF_BOUNDS = 14
    ALLOCATION_TOO_LARGE = 15
    CAST_FAILURE = 16
    UNHANDLED_TAG = 19
    CONTINUATION_ALREADY_CONSUMED = 20
    DISABLED_OPCODE = 21
    UNCAUGHT_EXCEPTION = 49


#: The one sentence of each code: a trap's message never holds anything that the guest chose.
TRAP_SENTENCES = {
    TrapCode.STACK_OVERFLOW: "call stack exhausted",
    TrapCode.MEMORY_OUT_OF_BOUNDS: "out of bounds memory access",
    TrapCode.HEAP_MISALIGNED: "misaligned atomic memory access",
    TrapCode.TABLE_OUT_OF_BOUNDS: "out of bounds table access",
    TrapCode.INDIRECT_CALL_TO_NULL: "indirect call to a null table entry",
    TrapCode.BAD_SIGNATURE: "indirect call type mismatch",
    TrapCode.INTEGER_OVERFLOW: "integer overflow",
    TrapCode.INTEGER_DIVISION_BY_ZERO: "integer divide by zero",
    TrapCode.BAD_CONVERSION_TO_INTEGER: "invalid conversion to integer",
    TrapCode.UNREACHABLE: "unreachable instruction executed",
    TrapCode.INTERRUPT: "interrupted",
    TrapCode.OUT_OF_FUEL: "all fuel consumed",
    TrapCode.ATOMIC_WAIT_NON_SHARED_MEMORY: "atomic wait on non-shared memory",
    TrapCode.NULL_REFERENCE: "null reference",
    TrapCode.ARRAY_OUT_OF_BOUNDS: "out of bounds array access",
    TrapCode.ALLOCATION_TOO_LARGE: "allocation size too large",
    TrapCode.CAST_FAILURE: "cast failure",
    TrapCode.UNHANDLED_TAG: "suspension to a tag without a handler",
    TrapCode.CONTINUATION_ALREADY_CONSUMED: "continuation resumed twice",
    TrapCode.DISABLED_OPCODE: "disabled opcode executed",
    TrapCode.UNCAUGHT_EXCEPTION: "uncaught exception",
}


#: That of a trap without a code of ours, such as a GC heap that may not grow.
UNKNOWN_TRAP = "stopped by the engine"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a guest's backtrace, innermost first. Names were chosen by the guest: data, not text to trust."""

    func_index: int
    func_name: str | None
    module_name: str | None
    func_offset: int
    module_offset: int


class WasmError(Exception):
    """Base of all. `message` is the text after the prefix; data fields are None (or empty) where they do not apply.

    cause        why (`Cause`)
    trap_code    for guest traps (`TrapCode`)
    frames       the guest's backtrace, innermost first (tuple of `Frame`)
    signal       the signal number that ended the worker
    exit_code    the worker's exit code, or the guest's for `GuestExit`
    limit        the limit that was hit: seconds, bytes, units of fuel or a count
    observed     what was seen against `limit`, same unit
    pid          the worker's process id
    stderr_tail  the last 4 KiB the worker wrote to standard error
    row, results for `call_many`: the failing row's index, and the results of the rows before it
    output       for `run`, and for a guest that ended while instantiating: what it had written (`wasi.Output`)
    receipt      for a call in a block of `receipts()`: what it took (`Receipt`)
    """

    prefix: ClassVar[str] = "WASM error: "
    default_cause: ClassVar[Cause] = Cause.USAGE

    message: str
    cause: Cause
    trap_code: TrapCode | None
    frames: tuple[Frame, ...]
    signal: int | None
    exit_code: int | None
    limit: float | None
    observed: float | None
    pid: int | None
    stderr_tail: bytes
    row: int | None
    results: list[Any] | None
    output: Any
    receipt: Any

    def __init__(
        self,
        message: str,
        *,
        cause: Cause | None = None,
        trap_code: TrapCode | None = None,
        frames: tuple[Frame, ...] = (),
        signal: int | None = None,
        exit_code: int | None = None,
        limit: float | None = None,
        observed: float | None = None,
        pid: int | None = None,
        stderr_tail: bytes = b"",
        row: int | None = None,
        results: list[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = self.default_cause if cause is None else cause
        self.trap_code = trap_code
        self.frames = frames
        self.signal = signal
        self.exit_code = exit_code
        self.limit = limit
        self.observed = observed
        self.pid = pid
        self.stderr_tail = stderr_tail
        self.row = row
        self.results = results
        self.output = None
        self.receipt = None

    def __str__(self) -> str:
        return self.prefix + self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, cause={self.cause})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WasmError):
            return NotImplemented
        return type(self) is type(other) and self.message == other.message

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self.message))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(cls: type[WasmError], message: str, state: dict[str, Any]) -> WasmError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class CompileError(WasmError):
    """Parsing, validation or code generation failed, or a compile limit was hit (then `limit` says which figure)."""

    prefix = "WASM compile error: "
    default_cause = Cause.COMPILE


class InstantiationError(WasmError):
    """A missing or mistyped import, memory or table above its limit, a trap while instantiating, no worker."""

    prefix = "WASM instantiation error: "
    default_cause = Cause.LINK


class CallError(WasmError):
    """No such export, wrong arguments, an unsupported type, a host function that raised, use after close."""

    prefix = "WASM call error: "
    default_cause = Cause.USAGE


class Quarantined(CallError):
    """A plugin that keeps failing is not started now, so the call was not made; `cause` is that of its last failure,
    which is chained.

    since          when it was held back (an aware datetime)
    until          when it may be started again, None: not before somebody resets it
    retry_after_s  the same in seconds from when this was raised, or None
    """

    since: datetime | None
    until: datetime | None
    retry_after_s: float | None

    def __init__(
        self,
        message: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        retry_after_s: float | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.since = since
        self.until = until
        self.retry_after_s = retry_after_s


class _PoolBusy(CallError):
    """What both have: the numbers of that moment.

    waiting    calls that waited, this one not counted
    running    instances that were in use
    instances  instances that there were, those being started and ended included
    tenant     whose call it was
    waited_s   seconds that this call waited
    """

    waiting: int
    running: int
    instances: int
    tenant: str | int | None
    waited_s: float

    def __init__(
        self,
        message: str,
        *,
        waiting: int = 0,
        running: int = 0,
        instances: int = 0,
        tenant: str | int | None = None,
        waited_s: float = 0.0,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.waiting = waiting
        self.running = running
        self.instances = instances
        self.tenant = tenant
        self.waited_s = waited_s


class PoolFull(_PoolBusy):
    """No instance of a pool is free, and as many calls as may wait do: the call was not made. `limit` and `observed`:
    calls that may wait, and that do; `waiting`, `running`, `instances` and `tenant`."""


class PoolTimeout(_PoolBusy):
    """No instance of a pool was free for as long as this call was to wait: it was not made. `limit` and `observed`: the
    seconds allowed and waited; `waiting`, `running`, `instances`, `tenant` and `waited_s`."""


class MemoryAccessError(WasmError):
    """A read or write outside linear memory, no memory exported, or a guest's pointer outside its memory."""

    prefix = "WASM "
    default_cause = Cause.MEMORY

    def __init__(self, message: str = "memory access out of bounds", **fields: Any) -> None:
        super().__init__(message, **fields)

    def __str__(self) -> str:
        return "WASM memory access out of bounds"


class FuelExhausted(WasmError):
    """The fuel budget of this call is used up."""

    prefix = "WASM "
    default_cause = Cause.FUEL

    def __init__(self, message: str = "fuel budget exhausted", **fields: Any) -> None:
        super().__init__(message, **fields)

    def __str__(self) -> str:
        return "WASM fuel budget exhausted"


class Trap(WasmError):
    """The guest trapped. The message is one fixed sentence per `trap_code`; guest-chosen names are in `frames`."""

    prefix = "WASM trap: "
    default_cause = Cause.GUEST_TRAP


class WallClockExceeded(Trap):
    """Stopped at its deadline; `limit` in seconds."""

    default_cause = Cause.WALL


class RssExceeded(Trap):
    """Killed for its memory, or failed because it was refused more at the ceiling over it (untouched memory counts
    there); `limit` and `observed` in bytes."""

    default_cause = Cause.RSS


class WorkerCrashed(Trap):
    """Any other death of a worker: a signal, an exit, a reply that breaks the protocol; `cause` tells which."""

    default_cause = Cause.SIGNAL


class GuestExit(Trap):
    """The guest called `proc_exit` inside a call; `exit_code` is what it passed."""

    default_cause = Cause.GUEST_EXIT
