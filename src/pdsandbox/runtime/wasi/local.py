"""WASI for a guest in this very process: its grants opened here, its output recorded here.

A worker makes its `System` of descriptors that were sent to it instead.
"""

from __future__ import annotations

from typing import Any

from ...grants import input_of, open_dirs, output_of
from ...wasi import Wasi
from ..guest import Guest
from .streams import Output, Recorder, input_stream, output_stream
from .system import Streams, System

__all__ = ["local_system"]


def local_system(guest: Guest, wasi: Wasi) -> System:
    """InstantiationError, USAGE, for a directory that cannot be granted."""
    standard = Streams(
        input_stream(input_of(wasi.stdin)),
        _output(wasi.stdout, wasi.stdout_bytes),
        _output(wasi.stderr, wasi.stderr_bytes),
    )
    return System(guest, wasi, standard, open_dirs(wasi))


def _output(given: Any, most: int) -> Output:
    leads_to = output_of(given)
    return Recorder(most) if leads_to is None else output_stream(leads_to)
