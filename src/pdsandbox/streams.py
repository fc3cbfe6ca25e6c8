"""A guest's standard streams: small objects that read or write bytes, on this side of whatever they lead to.

A host runs them where its user is: in the same process as the guest, or in the supervisor for a guest in a worker. The
guest's memory is not here, nor what waiting may cost (`Wait`).
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final

from .errors import CallError, Cause

__all__ = ["Input", "Output", "Recorder", "Standard", "Wait", "input_stream", "output_stream", "poll_fds"]

#: Returns when the descriptor is ready for this event of poll(2).
Wait = Callable[[int, int], None]
#: (events by descriptor, milliseconds or None for as long as it takes) -> what has come, as `select.poll` says it.
Poll = Callable[[Mapping[int, int], int | None], dict[int, int]]

# A pipe that poll(2) calls writable takes so much without blocking (pipe(7), PIPE_BUF).
_PIPE_BUF: Final = 4096
# What does not block is written in pieces of this, which a deadline is looked at between.
_PIECE: Final = 1 << 20


class Input:
    """What the guest reads as its standard input. `fd`: what to poll; None: reading never has to wait, or nobody can
    tell."""

    tty = False
    fd: int | None = None

    def read(self, most: int) -> bytes:
        """At least one byte, waiting for it; none at the end. OSError; CallError for what the user's own code did."""
        raise NotImplementedError


class Output:
    """What the guest writes as its standard output or error. `fd` as in `Input`."""

    tty = False
    fd: int | None = None

    def write(self, data: bytes) -> None:
        """All of it. OSError, such as BrokenPipeError; CallError as for `Input`."""
        raise NotImplementedError


class FdInput(Input):
    """A descriptor: a file, a pipe, a terminal."""

    def __init__(self, fd: int, wait: Wait | None) -> None:
        self.fd = self._fd = fd
        self._wait = wait
        self._may_block = wait is not None and _is_regular(fd) is False
        self.tty = os.isatty(fd)

    def read(self, most: int) -> bytes:
        if self._wait is not None:
            self._wait(self._fd, select.POLLIN)
        while True:
            try:
                return self._read_soon(most) if self._may_block else os.read(self._fd, most)
            except BlockingIOError:  # somebody has made it non-blocking, for all who have it open; or was faster
                (self._wait or _block)(self._fd, select.POLLIN)

    def _read_soon(self, most: int) -> bytes:
        """What is there. Another reader may have taken it since it was waited for, and a read that waited would do so
        past every deadline. Not all files can be read without waiting: terminals cannot."""
        buffer = bytearray(most)
        try:
            got = os.preadv(self._fd, [buffer], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            raise
        except (OSError, AttributeError):  # AttributeError: another system
            self._may_block = False
            return os.read(self._fd, most)
        return bytes(memoryview(buffer)[:got])


class FdOutput(Output):
    """A descriptor: a file, a pipe, a terminal."""

    def __init__(self, fd: int, wait: Wait | None) -> None:
        self.fd = self._fd = fd
        self._wait = wait
        self._piece = _PIECE
        self.tty = os.isatty(fd)
        if wait is not None and _is_regular(fd) is False:
            self._piece = _PIPE_BUF

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._wait is not None:
                self._wait(self._fd, select.POLLOUT)
            try:
                view = view[os.write(self._fd, view[: self._piece]) :]
            except BlockingIOError:
                (self._wait or _block)(self._fd, select.POLLOUT)


def _is_regular(fd: int) -> bool | None:
    """None when nothing is open there: the guest learns it when it reads or writes."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return None


def _block(fd: int, event: int) -> None:
    poll_fds({fd: event}, None)


def poll_fds(events: Mapping[int, int], patience_ms: int | None) -> dict[int, int]:
    """A `Poll` for descriptors of this process."""
    poll = select.poll()
    for fd, mask in events.items():
        poll.register(fd, mask)
    return dict(poll.poll(patience_ms))


class BytesInput(Input):
    """Bytes that are here already."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def read(self, most: int) -> bytes:
        data, self._rest = self._rest[:most], self._rest[most:]
        return bytes(data)


class ObjectInput(Input):
    """An object with `read`, of the user's."""

    def __init__(self, given: Any) -> None:
        self._read: Callable[[int], Any] = getattr(given, "read1", None) or given.read
        self._rest = b""

    def read(self, most: int) -> bytes:
        data = self._rest or _users("reading stdin", self._read, most)
        if data is None:  # a raw object that has nothing yet
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not isinstance(data, bytes | bytearray | memoryview):
            text = f"stdin.read returned {type(data).__name__}, not bytes"
            raise CallError(text, cause=Cause.HOST_FUNCTION)
        data, self._rest = bytes(data[:most]), bytes(data[most:])
        return data


class FunctionOutput(Output):
    """A function of the user's that takes bytes."""

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


class Recorder(Output):
    """Keeps what is written, up to `most` bytes since it was last taken; what comes after that is dropped."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept = bytearray()
        self._dropped = False

    def write(self, data: bytes) -> None:
        room = self.most - len(self._kept)
        self._kept += data[:room] if room < len(data) else data
        self._dropped |= room < len(data)

    def take(self) -> tuple[bytes, bool]:
        """(what was kept, whether something was dropped); it begins anew."""
        taken = bytes(self._kept), self._dropped
        self._kept.clear()
        self._dropped = False
        return taken


def input_stream(given: Any, wait: Wait | None = None) -> Input:
    """The stream for what `grants.input_of` gave. Without `wait`, reading a descriptor blocks as long as it takes."""
    if isinstance(given, bytes):
        return BytesInput(given)
    return FdInput(given, wait) if isinstance(given, int) else ObjectInput(given)


def output_stream(given: Any, most: int, wait: Wait | None = None) -> Output:
    """The stream for what `grants.output_of` gave; None: up to `most` bytes are captured."""
    if given is None:
        return Recorder(most)
    return FdOutput(given, wait) if isinstance(given, int) else FunctionOutput(given)


class Standard:
    """The three standard streams, and how to wait for those with an `fd`."""

    __slots__ = ("poll", "stderr", "stdin", "stdout")

    def __init__(self, stdin: Input, stdout: Output, stderr: Output, poll: Poll = poll_fds) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.poll = poll

    def taken(self) -> tuple[bytes, bytes, bool]:
        """(standard output, standard error, whether something was dropped) of what was recorded since the last time."""
        out, err = (
            stream.take() if isinstance(stream, Recorder) else (b"", False) for stream in (self.stdout, self.stderr)
        )
        return out[0], err[0], out[1] or err[1]
