"""The calls about the program itself: arguments, environment, clocks, random numbers, its end. And sockets: none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from ...errors import GuestExit
from . import abi
from .memory import Errno
from .system import System

# The kernel gives its random numbers as fast in pieces, and a large buffer is never copied whole.
_PIECE: Final = 1 << 16


def args_get(system: System, argv: int, buffer: int) -> None:
    _strings(system, system.args, argv, buffer)


def args_sizes_get(system: System, count: int, size: int) -> None:
    _sizes(system, system.args, count, size)


def environ_get(system: System, environ: int, buffer: int) -> None:
    _strings(system, system.env, environ, buffer)


def environ_sizes_get(system: System, count: int, size: int) -> None:
    _sizes(system, system.env, count, size)


def _strings(system: System, strings: Sequence[bytes], pointers: int, buffer: int) -> None:
    table = bytearray()
    at = buffer
    for string in strings:
        table += abi.u32.pack(at & 0xFFFFFFFF)
        at += len(string) + 1
    memory = system.memory
    memory.write(buffer, b"".join([string + b"\0" for string in strings]))
    memory.write(pointers, bytes(table), 4)


def _sizes(system: System, strings: Sequence[bytes], count: int, size: int) -> None:
    system.memory.write_u32(count, len(strings))
    system.memory.write_u32(size, sum([len(string) + 1 for string in strings]))


def _clock(number: int) -> int:
    """CPU time is not told: BADF, as wasmtime has it. INVAL for what is no clock."""
    if number in (abi.REALTIME, abi.MONOTONIC):
        return number
    raise Errno(abi.BADF if number < abi.CLOCKS else abi.INVAL)


def clock_res_get(system: System, clock: int, out: int) -> None:
    system.memory.write_u64(out, system.clocks.resolution(_clock(clock)))


def clock_time_get(system: System, clock: int, _precision: int, out: int) -> None:
    system.memory.write_u64(out, system.clocks.now(_clock(clock)))


def random_get(system: System, buffer: int, length: int) -> None:
    memory, draw = system.memory, system.entropy
    if length:
        memory.address(buffer, length)
    for at in range(0, length, _PIECE):
        memory.write(buffer + at, draw(min(_PIECE, length - at)))


def sched_yield(_system: System) -> None:
    """The guest has one thread; there is nobody to yield to."""


def proc_exit(_system: System, code: int) -> NoReturn:
    raise GuestExit(f"guest exited with {code}", exit_code=code)


def proc_raise(_system: System, signal: int) -> NoReturn:
    raise Errno(abi.NOTSUP if signal < abi.SIGNALS else abi.INVAL)


def _no_socket(system: System, fd: int, *_rest: Any) -> NoReturn:
    """There are no sockets: whatever it is, it is none."""
    system.table.any(fd)
    raise Errno(abi.NOTSOCK)


sock_accept = sock_recv = sock_send = sock_shutdown = _no_socket

CALLS: Final[dict[str, Callable[..., None]]] = {
    "args_get": args_get,
    "args_sizes_get": args_sizes_get,
    "environ_get": environ_get,
    "environ_sizes_get": environ_sizes_get,
    "clock_res_get": clock_res_get,
    "clock_time_get": clock_time_get,
    "random_get": random_get,
    "sched_yield": sched_yield,
    "proc_exit": proc_exit,
    "proc_raise": proc_raise,
    "sock_accept": sock_accept,
    "sock_recv": sock_recv,
    "sock_send": sock_send,
    "sock_shutdown": sock_shutdown,
}
