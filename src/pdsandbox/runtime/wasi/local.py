"""WASI for a guest in this very process: its grants opened here, its output recorded here.

A worker makes its `System` of descriptors that were sent to it instead.
"""

from __future__ import annotations

from ...grants import input_of, open_dirs, output_of
from ...streams import Standard, input_stream, output_stream
from ...wasi import Wasi
from ..guest import Guest
from .system import Granted, Preopen, System

__all__ = ["local_system"]


def local_system(guest: Guest, wasi: Wasi) -> System:
    """InstantiationError, USAGE, for a directory that cannot be granted."""
    standard = Standard(
        input_stream(input_of(wasi.stdin)),
        output_stream(output_of(wasi.stdout), wasi.stdout_bytes),
        output_stream(output_of(wasi.stderr), wasi.stderr_bytes),
    )
    dirs = [
        Preopen(item.guest_path_bytes(), fd, item.mode == "rw", item.max_bytes)
        for item, fd in zip(wasi.dirs, open_dirs(wasi), strict=True)
    ]
    clock = None if wasi.clock is None else (wasi.clock.start_ns, wasi.clock.step_ns)
    return System(guest, Granted(wasi.arg_bytes(), wasi.env_bytes(), clock, wasi.random_seed), standard, dirs)
