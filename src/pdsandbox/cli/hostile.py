"""What the gallery's guests do below WebAssembly: native code inside the worker, and a module that is slow to compile.

The functions here are shipped with `in_worker` and run in the sandbox only. They stand for a guest that broke out
of the engine: what such code does, the supervisor must survive and name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from typing import Any

__all__ = ["compile_bomb", "crash", "exit_quietly", "open_a_socket", "send_garbage", "send_half_a_reply"]


def crash(_caller: Any) -> None:
    """Dereference null, as a miscompiled guest might."""
    ctypes.string_at(0)


def exit_quietly(_caller: Any) -> None:
    """Leave the worker without a word."""
    os._exit(3)


def send_half_a_reply(_caller: Any) -> None:
    """Start a frame on every descriptor that leads out, then say nothing more, ever."""
    _write_everywhere(b"\x40\x00\x00")
    _stay()


def send_garbage(_caller: Any) -> None:
    """Answer with bytes that are no frame."""
    _write_everywhere(b"\xff" * 64)
    _stay()


def open_a_socket(_caller: Any) -> None:
    """Reach for the network."""
    socket.socket()


def _write_everywhere(data: bytes) -> None:
    """To every descriptor above the standard three: which of them is the way out is not to be asked in the sandbox."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, data)


def _stay() -> None:
    while True:
        time.sleep(3600)


def compile_bomb(depth: int = 1000, tables: int = 100) -> bytes:
    """A valid module of 190 KB whose one function takes a code generator that meters fuel about 20 s.

    `tables` jump tables, each of which leaves any of `depth` nested blocks: every edge of the control flow carries
    the fuel counter. Without metering it takes 0.3 s.
    """
    table = b"\x20\x00\x0e" + _leb(depth - 1) + b"".join(map(_leb, range(depth)))  # local.get 0, br_table 0 1 2 ...
    block, end = b"\x02\x40", b"\x0b"
    body = b"\0" + block * depth + (block + table + end) * tables + end * depth + end
    return b"\0asm\1\0\0\0" + b"".join(
        (
            _section(1, b"\1\x60\1\x7f\0"),  # type 0: (i32) -> ()
            _section(3, b"\1\0"),  # function 0 has it
            _section(7, b"\1\3run\0\0"),  # and is exported as "run"
            _section(10, b"\1" + _leb(len(body)) + body),
        )
    )


def _section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + _leb(len(content)) + content


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)
