"""Verdicts, purely: what a death, an overrun or an ERROR message means. Decides, never acts; no clock, no I/O."""

from __future__ import annotations

import errno as errno_names
import os
import signal
from dataclasses import dataclass

from ..errors import (
    TRAP_SENTENCES,
    UNKNOWN_TRAP,
    CallError,
    Cause,
    CompileError,
    Frame,
    FuelExhausted,
    GuestExit,
    InstantiationError,
    MemoryAccessError,
    RssExceeded,
    Trap,
    TrapCode,
    WallClockExceeded,
    WasmError,
    WorkerCrashed,
)
from ..protocol import messages as m
from ..text import one_line
from .cputime import START_TIMEOUT_S

MIB = 1 << 20

# A worker says at most 4,000; a hostile one's millions of lines must not become millions of strings.
_TRACEBACK_CHARS = 8_000

# Guests touch fresh pages at 1 to 2 GB/s here, with huge pages several times that; the next sample comes before
# this rate could use up what is left. At most 10 ms apart, at least 0.5 ms (a sample costs 4 us).
_BYTES_PER_S = 4 << 30
_SAMPLE_MOST_S = 0.010
_SAMPLE_LEAST_S = 0.0005

# An allocator that is refused asked for about this much (Python's takes its arenas by the MiB).
_CEILING_TOLERANCE = 2 * MIB


@dataclass(frozen=True, slots=True)
class Watch:
    """What one operation may use: seconds (for messages; the deadline is absolute) and bytes resident.

    interruptible: at the deadline the guest can be asked to stop before its worker is killed.
    starting: nobody's guest runs yet; missing the deadline is this machine's failure.
    """

    wall_s: float | None
    deadline: float
    rss_bytes: int | None
    interruptible: bool = False
    starting: bool = False


def next_sample_s(resident: int, rss_bytes: int | None) -> float:
    """How long until resident memory must be looked at again."""
    if rss_bytes is None:
        return 3600.0
    return min(_SAMPLE_MOST_S, max(_SAMPLE_LEAST_S, (rss_bytes - resident) / _BYTES_PER_S))


def over(now: float, resident: int, watch: Watch) -> WasmError | None:
    """The verdict on a running operation, or None."""
    if watch.rss_bytes is not None and resident > watch.rss_bytes:
        return rss_exceeded(resident, watch.rss_bytes)
    if now >= watch.deadline:
        return not_started(watch.wall_s) if watch.starting else wall_exceeded(watch.wall_s)
    return None


def start_watch(now: float) -> Watch:
    """The watch over a process that is being started."""
    return Watch(START_TIMEOUT_S, now + START_TIMEOUT_S, None, starting=True)


def not_started(wall_s: float | None) -> InstantiationError:
    text = f"a worker could not be started: it did not answer for {wall_s or 0:g} s"
    return InstantiationError(text, cause=Cause.HOST)


def wall_exceeded(wall_s: float | None) -> WallClockExceeded:
    return WallClockExceeded(f"wall-clock limit of {wall_s or 0:g} s exceeded", limit=wall_s)


def rss_exceeded(resident: int, limit: int) -> RssExceeded:
    text = f"RSS limit of {limit / MIB:g} MiB exceeded ({resident / MIB:.1f} MiB observed)"
    return RssExceeded(text, limit=limit, observed=resident)


def at_ceiling(data: int, ceiling: int | None, watch: Watch | None) -> RssExceeded | None:
    """The verdict on a worker that failed as one does for want of memory, with `data` bytes reserved of the `ceiling`
    that RLIMIT_DATA sets; None when there was more to be had."""
    if ceiling is None or watch is None or watch.rss_bytes is None or data < ceiling - _CEILING_TOLERANCE:
        return None
    text = f"RSS limit of {watch.rss_bytes / MIB:g} MiB exceeded ({data / MIB:.1f} MiB reserved, and no more granted)"
    return RssExceeded(text, limit=watch.rss_bytes, observed=data)


def wants_memory(sig: int | None, exit_code: int | None) -> bool:
    """Whether a process that is refused memory may end like this: aborted, by a null pointer that nobody looked at, or
    by a MemoryError where nobody expects one."""
    return sig in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS) or exit_code == os.EX_SOFTWARE


def lacks_memory(error: m.Error) -> bool:
    """Whether an ERROR says that the engine, or a function in the worker, was refused memory."""
    kind = error.failure
    if kind in (m.Failure.TRAP, m.Failure.START_TRAP):
        return error.trap_code is None  # the engine's own, such as a heap that may not grow
    if kind in (m.Failure.HOST_FUNCTION, m.Failure.START_HOST_FUNCTION):
        return error.text.rstrip().rpartition("\n")[2].startswith(("MemoryError", "OSError: [Errno 12]"))  # ENOMEM
    return kind == m.Failure.ENGINE


def ended(sig: int | None, exit_code: int | None, denied: str | None = None) -> WorkerCrashed:
    """A worker that ended by itself. `denied`: the system call that the filter ended it for, where that is known."""
    if sig is not None:
        what = f" (system call {denied})" if denied else ""
        return WorkerCrashed(f"worker crashed: {signal_name(sig)}{what}", cause=Cause.SIGNAL, signal=sig)
    return WorkerCrashed(f"worker crashed: exit code {exit_code}", cause=Cause.EXIT, exit_code=exit_code)


def not_locked_down(last_words: bytes) -> InstantiationError:
    """A worker that could not give up what it must: it has met nobody's code."""
    lines = last_words.decode("utf-8", "replace").strip().splitlines() or ["it did not say why"]
    return InstantiationError(f"a worker could not be locked down: {one_line(lines[-1], 200)}", cause=Cause.HOST)


def timer_fired(sig: int | None, watch: Watch | None, now: float) -> bool:
    """Whether a death by SIGALRM or SIGXCPU was the backstop: only after the deadline of a running operation."""
    return sig in (signal.SIGALRM, signal.SIGXCPU) and watch is not None and now >= watch.deadline


def broke_protocol(what: str) -> WorkerCrashed:
    return WorkerCrashed(f"worker crashed: protocol violation: {one_line(what, 200)}", cause=Cause.PROTOCOL)


def lost(what: str) -> WorkerCrashed:
    """The fork server is gone, and with it every worker and what could be known of their ends."""
    return WorkerCrashed(f"worker crashed: {what}", cause=Cause.HOST)


def killed() -> WorkerCrashed:
    return WorkerCrashed("worker crashed: killed by kill()", cause=Cause.CANCELLED)


def abandoned() -> WorkerCrashed:
    return WorkerCrashed("worker crashed: killed because its caller left during a call", cause=Cause.CANCELLED)


def closed() -> CallError:
    return CallError("the instance is closed", cause=Cause.CLOSED)


def refused(number: int) -> InstantiationError:
    """This machine refused to start a worker."""
    name = errno_names.errorcode.get(number)
    text = f"error {number}" if name is None else f"{os.strerror(number)} ({name})"
    return InstantiationError(f"a worker could not be started: {text}", cause=Cause.HOST)


def host_failure(exc: OSError) -> InstantiationError:
    """The same, refused in this very process."""
    return (
        refused(exc.errno)
        if exc.errno
        else InstantiationError(f"a worker could not be started: {exc}", cause=Cause.HOST)
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def failure(error: m.Error) -> WasmError:
    """The error that an ERROR message stands for. Its text and frames may come from a guest: cut and escaped."""
    kind, text = error.failure, one_line(error.text, 500)
    if kind == m.Failure.FUEL:
        return FuelExhausted()
    if kind == m.Failure.MEMORY:
        return MemoryAccessError()
    if kind == m.Failure.TRAP:
        code = _trap_code(error.trap_code)
        return Trap(_sentence(code), trap_code=code, frames=_frames(error.frames))
    if kind == m.Failure.START_TRAP:
        code = _trap_code(error.trap_code)
        # Which of the two is all that is taken from the text.
        where = "active segment" if text.startswith("active segment") else "start function trapped"
        message = f"{where}: {_sentence(code)}"
        return InstantiationError(message, cause=Cause.GUEST_TRAP, trap_code=code, frames=_frames(error.frames))
    if kind == m.Failure.GUEST_EXIT:
        return GuestExit(f"guest exited with {error.exit_code}", exit_code=error.exit_code)
    if kind == m.Failure.COMPILE:
        return CompileError(text, limit=error.limit)
    if kind == m.Failure.HOST_LIMIT:
        return CallError(text, cause=Cause.HOST_FUNCTION, limit=error.limit)
    if kind == m.Failure.CALL:
        return CallError(text)
    if kind in (m.Failure.HOST_FUNCTION, m.Failure.START_HOST_FUNCTION):
        return _host_function_failed(error)
    if kind == m.Failure.START_MEMORY:
        return InstantiationError(text, cause=Cause.MEMORY)
    if kind == m.Failure.START_HOST:
        return InstantiationError(text, cause=Cause.HOST)
    if kind == m.Failure.LINK:
        return InstantiationError(text)
    return CallError(f"the engine failed: {text}", cause=Cause.EXIT)


def _host_function_failed(error: m.Error) -> WasmError:
    """A function in the worker raised: its traceback, as text, becomes the chained exception."""
    first, _, rest = error.text[:_TRACEBACK_CHARS].partition("\n")
    cls = CallError if error.failure == m.Failure.HOST_FUNCTION else InstantiationError
    exc = cls(one_line(first, 200), cause=Cause.HOST_FUNCTION, limit=error.limit)
    if rest:
        exc.__cause__ = RuntimeError("\n".join(one_line(line, 200) for line in rest.splitlines()[:40]))
    return exc


def _trap_code(value: int | None) -> TrapCode | None:
    try:
        return TrapCode(value)
    except ValueError:
        return None


def _sentence(code: TrapCode | None) -> str:
    return UNKNOWN_TRAP if code is None else TRAP_SENTENCES[code]


def _frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    def cut(name: str | None) -> str | None:
        return None if name is None else name[:256]

    return tuple(
        Frame(f.func_index, cut(f.func_name), cut(f.module_name), f.func_offset, f.module_offset) for f in frames
    )
