"""What a fork server is configured with, out of what a supervisor is.

Imports no more than that takes: a command says it to its fork server before it has imported the supervisor.
"""

from __future__ import annotations

import os
from typing import Final

from ..hardening import Hardening, Layer, hardening_of
from ..limits import EngineConfig, Limits
from ..locate import wasmtime_library
from ..protocol import control as c
from . import launch
from .cputime import first_cpu_s

__all__ = ["CORES", "config", "say_ahead"]

CORES: Final = os.cpu_count() or 1
MIB: Final = 1 << 20
# Above what a guest may use, for the engine's own structures and the interpreter: RLIMIT_DATA also charges memory
# that was reserved and never touched, so it must not be what stops a guest that keeps its limits.
_DATA_SLACK: Final = 64 * MIB
# A growing vector in the code generator reserves up to twice what it holds at once.
_COMPILER_SLACK: Final = 256 * MIB


def config(
    limits: Limits,
    engine: EngineConfig,
    hardening: Hardening,
    library: str,
    *,
    cgroup: str = "",
    instances: int = 1,
    brief: bool = False,
) -> c.Config:
    """The first packet to a fork server. `library`: the path of wasmtime's."""
    bounds = (limits.rss_bytes, limits.memory_bytes)
    data = None if None in bounds else max(b for b in bounds if b is not None) + _DATA_SLACK
    rss = limits.compile_rss_bytes
    compiler = None if rss is None else rss + max(_COMPILER_SLACK, 2 * rss)
    return c.Config(
        library,
        engine.fuel,
        engine.interruptible,
        limits.stack_bytes,
        data,
        compiler,
        limits.memory_bytes,
        limits.memories,
        limits.table_elements,
        limits.host_calls,
        limits.host_call_bytes,
        limits.message_bytes,
        frozenset(layer for layer in Layer if hardening.wants(layer)),
        first_cpu_s(limits.wall_s, CORES),
        first_cpu_s(limits.compile_wall_s, 1),
        cgroup,
        limits.rss_bytes,
        limits.compile_rss_bytes,
        instances,
        brief,
    )


def say_ahead(limits: Limits, hardening: str) -> None:
    """Tell a fork server that was started ahead what a supervisor with these will: it need not wait for that one to be
    imported."""
    wanted = hardening_of(hardening)
    try:
        library, _ = wasmtime_library()
    except (ImportError, OSError):
        return  # the supervisor will find out, too, and say so
    launch.say(c.encode(config(limits, EngineConfig(), wanted, library, brief=not wanted.required)))
