"""Standard streams: small objects that read or write bytes, and tell whether that would block.

What they lead to (a pipe to a supervisor, a terminal, a buffer here) is behind them; the guest's memory is not here.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any, Protocol

from ...errors import CallError, Cause
from . import abi
from .memory import Errno

__all__ = ["Input", "Output", "Recorder", "input_stream", "output_stream"]


class Input(Protocol):
    """What the guest reads as its standard input."""

    tty: bool
    #: What to poll; None: reading never has to wait, or nobody can tell.
    fd: int | None

    def read(self, most: int) -> bytes:
        """At least one byte, waiting for it; none at the end. OSError."""


class Output(Protocol):
    """What the guest writes as its standard output or error."""

    tty: bool
    fd: int | None

    def write(self, data: bytes) -> None:
        """All of it. OSError, such as BrokenPipeError."""


class FdInput:
    """A descriptor: a file, a pipe, a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd: int | None = fd
        self._fd = fd
        self.tty = os.isatty(fd)

    def read(self, most: int) -> bytes:
        while True:
            try:
                return os.read(self._fd, most)
            except BlockingIOError:  # somebody has made it non-blocking, for all who have it open
                _wait(self._fd, select.POLLIN)


class FdOutput:
    """A descriptor: a file, a pipe, a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd: int | None = fd
        self._fd = fd
        self.tty = os.isatty(fd)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                _wait(self._fd, select.POLLOUT)


def _wait(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()


class BytesInput:
    """Bytes that are here already."""

    tty = False
    fd: int | None = None

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def read(self, most: int) -> bytes:
        data, self._rest = self._rest[:most], self._rest[most:]
        return bytes(data)


class ObjectInput:
    """An object with `read`, of the user's."""

    tty = False
    fd: int | None = None

    def __init__(self, given: Any) -> None:
        self._read: Callable[[int], Any] = getattr(given, "read1", None) or given.read
        self._rest = b""

    def read(self, most: int) -> bytes:
        data = self._rest or _users("reading stdin", self._read, most)
        if data is None:  # a raw object that has nothing yet
            raise Errno(abi.AGAIN)
        if not isinstance(data, bytes | bytearray | memoryview):
            text = f"stdin.read returned {type(data).__name__}, not bytes"
            raise CallError(text, cause=Cause.HOST_FUNCTION)
        data, self._rest = bytes(data[:most]), bytes(data[most:])
        return data


class FunctionOutput:
    """A function of the user's that takes bytes."""

    tty = False
    fd: int | None = None

    def __init__(self, function: Callable[[bytes], object]) -> None:
        self._function = function

    def write(self, data: bytes) -> None:
        _users("writing a stream", self._function, data)


def _users(what: str, function: Callable[[Any], Any], argument: Any) -> Any:
    """What the user's function gives; CallError, HOST_FUNCTION, for whatever it raises."""
    try:
        return function(argument)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise CallError(f"{what} raised {type(exc).__name__}", cause=Cause.HOST_FUNCTION) from exc


class Recorder:
    """Keeps what is written, up to `most` bytes since it was last taken; what comes after that is dropped."""

    tty = False
    fd: int | None = None

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._dropped = False

    def write(self, data: bytes) -> None:
        room = self._most - len(self._kept)
        self._kept += data[:room] if room < len(data) else data
        self._dropped |= room < len(data)

    def take(self) -> tuple[bytes, bool]:
        """(what was kept, whether something was dropped); it begins anew."""
        taken = bytes(self._kept), self._dropped
        self._kept.clear()
        self._dropped = False
        return taken


def input_stream(given: Any) -> Input:
    """The stream for what `stdio.input_of` gave."""
    if isinstance(given, bytes):
        return BytesInput(given)
    return FdInput(given) if isinstance(given, int) else ObjectInput(given)


def output_stream(given: Any) -> Output:
    """The stream for what `stdio.output_of` gave, but None."""
    return FdOutput(given) if isinstance(given, int) else FunctionOutput(given)
