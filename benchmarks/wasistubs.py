"""WASI for modules that were built against it and need next to nothing of it: arguments, a clock, somewhere to print.

Nothing is granted: no files, no environment; what is asked for beyond that is answered with an error number, as by a
system where there is nothing to be had. The functions touch the guest only through `caller`, so the same ones serve a
worker and plain wasmtime-py. Knows nothing of either.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable

from pdsandbox import HostFunction
from pdsandbox.imports import Caller

MODULE = "wasi_snapshot_preview1"

# WASI preview 1 errno
_SUCCESS, _BADF = 0, 8
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Exited(Exception):
    """The guest called `proc_exit`; the text says with which code."""


class WasiStubs:
    """One guest's view: `arguments` are its argv; what it writes to any descriptor collects in `written`."""

    def __init__(self, arguments: Iterable[bytes] = ()) -> None:
        self._arguments = [argument + b"\0" for argument in arguments]
        self.written = b""

    def function(self, name: str, params: tuple[str, ...], results: tuple[str, ...]) -> HostFunction:
        """What answers the import `name` of that type."""
        answers: dict[str, Callable[..., int | None]] = {
            "args_sizes_get": self._args_sizes_get,
            "args_get": self._args_get,
            "environ_sizes_get": _environ_sizes_get,
            "environ_get": _environ_get,
            "clock_time_get": _clock_time_get,
            "fd_write": self._fd_write,
            "proc_exit": _proc_exit,
        }
        return HostFunction(answers.get(name, _nothing_there), params, results)

    def _args_sizes_get(self, caller: Caller, count_at: int, bytes_at: int) -> int:
        caller.memory_write(count_at, _U32.pack(len(self._arguments)))
        caller.memory_write(bytes_at, _U32.pack(sum(map(len, self._arguments))))
        return _SUCCESS

    def _args_get(self, caller: Caller, pointers_at: int, bytes_at: int) -> int:
        for argument in self._arguments:
            caller.memory_write(pointers_at, _U32.pack(bytes_at))
            caller.memory_write(bytes_at, argument)
            pointers_at += _U32.size
            bytes_at += len(argument)
        return _SUCCESS

    def _fd_write(self, caller: Caller, _fd: int, vectors_at: int, count: int, written_at: int) -> int:
        vectors = caller.memory_read(vectors_at, 8 * count)
        data = b"".join(caller.memory_read(start, length) for start, length in struct.iter_unpack("<II", vectors))
        self.written += data
        caller.memory_write(written_at, _U32.pack(len(data)))
        return _SUCCESS


def _environ_sizes_get(caller: Caller, count_at: int, bytes_at: int) -> int:
    caller.memory_write(count_at, _U32.pack(0))
    caller.memory_write(bytes_at, _U32.pack(0))
    return _SUCCESS


def _environ_get(_caller: Caller, _pointers_at: int, _bytes_at: int) -> int:
    return _SUCCESS


def _clock_time_get(caller: Caller, _clock: int, _precision: int, time_at: int) -> int:
    caller.memory_write(time_at, _U64.pack(time.monotonic_ns()))
    return _SUCCESS


def _proc_exit(_caller: Caller, code: int) -> None:
    raise Exited(f"the guest exited with {code}")


def _nothing_there(_caller: Caller, *_arguments: int) -> int:
    return _BADF
