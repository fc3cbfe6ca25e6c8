"""What is published of workers, fork servers and modules: which event, from what, and what it counts as.

Between those who see things happen and the journal, so that neither knows the other's fields. The names that things are
counted by are the fields of `HostStats`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import CompileError, WasmError
from ..protocol.control import Role
from ..text import one_line
from . import monitor
from .handle import Handle
from .journal import Journal

if TYPE_CHECKING:
    from .module import Compiled


def fork_server_started(journal: Journal, pid: int, asked: float) -> None:
    """`asked`: when it was, by the monotonic clock."""
    seconds = time.monotonic() - asked
    journal.publish("ForkServerStarted", lambda e: e.ForkServerStarted(pid=pid, seconds=seconds), "fork_servers")


def fork_server_lost(journal: Journal, pid: int, children: int, reason: str) -> None:
    journal.publish(
        "ForkServerLost", lambda e: e.ForkServerLost(pid=pid, children=children, reason=reason), "fork_servers_lost"
    )


def worker_started(journal: Journal, handle: Handle, pid: int) -> None:
    compiler = handle.role == Role.COMPILER
    journal.publish(
        "WorkerStarted",
        lambda e: e.WorkerStarted(worker=handle.ticket, pid=pid, compiler=compiler),
        "compilers_started" if compiler else "workers_started",
    )


def worker_ended(journal: Journal, handle: Handle) -> None:
    """`Handle.on_end`. One that never started leaves the event of its refusal, if it was refused."""
    compiler, worker, pid = handle.role == Role.COMPILER, handle.ticket, handle.pid
    verdict: WasmError = handle.verdict or monitor.lost("the fork server is gone")
    if handle.refused is not None:
        journal.publish(
            "WorkerRefused",
            lambda e: e.WorkerRefused(worker=worker, compiler=compiler, message=_line(verdict)),
            "workers_refused",
        )
    elif pid is not None:
        sig, exit_code = handle.exit or (None, None)
        journal.publish(
            "WorkerEnded",
            lambda e: e.WorkerEnded(
                worker=worker,
                pid=pid,
                compiler=compiler,
                cause=verdict.cause,
                message=_line(verdict),
                signal=sig,
                exit_code=exit_code,
                seconds=time.monotonic() - handle.born,
            ),
            "compilers_ended" if compiler else verdict.cause,
        )


def worker_ready(journal: Journal, handle: Handle, sha256: str, instance: int, asked: float, *, spare: bool) -> None:
    """An instance stands. `asked`: when it was, by the monotonic clock."""
    seconds = time.monotonic() - asked
    journal.publish(
        "WorkerReady",
        lambda e: e.WorkerReady(
            worker=handle.ticket, pid=handle.pid, sha256=sha256, instance=instance, seconds=seconds, spare=spare
        ),
        "instances_started",
    )


def compiled(journal: Journal, sha256: str, result: Compiled, asked: float) -> None:
    seconds, size = time.monotonic() - asked, result.artifact.size
    journal.publish("Compiled", lambda e: e.Compiled(sha256=sha256, seconds=seconds, artifact_bytes=size), "compiled")


def compile_failed(journal: Journal, sha256: str, error: CompileError, asked: float) -> None:
    seconds, cause, message = time.monotonic() - asked, error.cause, _line(error)
    journal.publish(
        "CompileFailed",
        lambda e: e.CompileFailed(sha256=sha256, seconds=seconds, cause=cause, message=message),
        "compile_failures",
    )


def cache_hit(journal: Journal, sha256: str, *, disk: bool) -> None:
    journal.publish("CacheHit", lambda e: e.CacheHit(sha256=sha256, disk=disk), "hits_disk" if disk else "hits_memory")


def quarantined(journal: Journal, sha256: str, failures: int, error: WasmError, left_s: float | None) -> None:
    """For restart policies. `left_s`: seconds until it may be tried again; None: when it is reset."""
    journal.publish(
        "Quarantined",
        lambda e: e.Quarantined(sha256=sha256, failures=failures, reason=_line(error), seconds=left_s),
        "quarantined",
    )


def _line(error: WasmError) -> str:
    return one_line(error.message, 500)
