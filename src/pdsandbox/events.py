"""What a host reports as it happens: one frozen class an event, for `Supervisor(on_event=...)`.

Data only: who publishes and delivers them lives in the supervisor. Each has `at`, seconds since the epoch
(`time.time`). A worker is known by `worker`, a number that no other worker or compiler of this process has, and that
grows; its pid may be used again. What one worker goes through is told in its order; of two processes, either may come
first: a module may be compiled before it is told that the fork server has started. Texts are on one line, with what a
guest may have chosen escaped and cut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .errors import Cause

__all__ = [
    "CacheHit",
    "CompileFailed",
    "Compiled",
    "Event",
    "EventsDropped",
    "ForkServerLost",
    "ForkServerStarted",
    "Quarantined",
    "WorkerEnded",
    "WorkerReady",
    "WorkerRefused",
    "WorkerStarted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all. `at`: when it was published, in seconds since the epoch."""

    at: float = field(default_factory=time.time)  # noqa: TID251 - for people and logs; nothing is measured by it


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkServerStarted(Event):
    """The fork server is warm. `seconds`: since it was asked for."""

    pid: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkServerLost(Event):
    """The fork server died, and its `children`, workers and compilers, with it; the next use starts another."""

    pid: int
    children: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """A process was forked: a worker, which may be a spare, or a compiler."""

    worker: int
    pid: int
    compiler: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRefused(Event):
    """This machine refused another process; who asked for it gets the error, unless it was for a spare."""

    worker: int
    compiler: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(Event):
    """An instance stands in a worker, ready for calls.

    sha256    of the module's bytes
    instance  its number in the worker: above 0 only where instances share one (isolation "module")
    seconds   since `instantiate` asked for a place in a worker
    spare     whether the worker was there before it was asked for
    """

    worker: int
    pid: int
    sha256: str
    instance: int
    seconds: float
    spare: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(Event):
    """A worker or compiler has ended; also when that was as it should be (`Cause.CLOSED`).

    cause      the first cause: what calls on its instances raise
    message    that error's
    signal     what ended the process, or `exit_code`; both None where that was lost with the fork server
    seconds    since it was asked for
    """

    worker: int
    pid: int
    compiler: bool
    cause: Cause
    message: str
    signal: int | None
    exit_code: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled(Event):
    """A module was compiled, in a process of its own. `artifact_bytes`: of native code."""

    sha256: str
    seconds: float
    artifact_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFailed(Event):
    """A compilation ended with CompileError; of equal requests at one time, the one that compiled says so."""

    sha256: str
    seconds: float
    cause: Cause
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHit(Event):
    """`compile` did not have to. `disk`: it came from `cache_dir`; else from memory, or from an equal request that was
    under way."""

    sha256: str
    disk: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined(Event):
    """A plugin (`WasmHost.plugin`, or `pool`) has failed too often, and is not started again for `seconds` (None: until
    it is reset).

    sha256    of the module's bytes
    failures  how many it had in the policy's window
    reason    the last one's message
    """

    sha256: str
    failures: int
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """`count` events were dropped here, because the hook, or a logging handler, was too slow for them."""

    count: int
