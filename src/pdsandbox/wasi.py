"""What a WASI program is granted, and what its run gave: frozen data, checked at construction.

Nothing is granted by default but a clock, random numbers and standard streams that end where they began. This module
opens nothing: whether a directory exists is found out when an instance is made.
"""

from __future__ import annotations

import io
import operator
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, SupportsIndex

__all__ = ["Clock", "Dir", "Output", "RunResult", "Wasi"]

# Linux allows a program's arguments and environment 2 MiB together by default, a quarter of its stack limit.
MAX_STRINGS: Final = 2 << 20
# Longer than any path that Linux would open.
MAX_PATH: Final = 4096
# Far beyond what anybody grants by hand; each is a descriptor in the worker.
MAX_DIRS: Final = 64
MAX_BYTES: Final = 1 << 44
_U64: Final = 2**64 - 1
# A pointer in the guest's argv or environ.
_POINTER: Final = 4


@dataclass(frozen=True, slots=True)
class Dir:
    """A directory of the host that the guest finds under `guest_path`, and all beneath it.

    host_path: where it is here. It must exist when an instance is made, or that is an `InstantiationError`.
    guest_path: its name in the guest, absolute or relative to the guest's working directory, which is "/".
    mode: "ro" (default), or "rw": then the guest may create, change and delete what the user of the worker may.
    max_bytes: bytes by which the guest may make it grow, its files' sizes added up; beyond that it gets the errno
        DQUOT. 0 to 16 TiB, or None (default): no limit. It bounds the new files, directories and links, too: 1024 and
        one for each 4 KiB.
        Nothing is renamed or linked into another directory then: that is XDEV. It counts what this guest does: what
        others do there at the same time is theirs.

    Raises TypeError or ValueError, saying what is wrong.
    """

    host_path: str | os.PathLike[str]
    guest_path: str
    mode: str = "ro"
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        host = os.fspath(self.host_path) if isinstance(self.host_path, str | os.PathLike) else None
        if not isinstance(host, str):
            raise TypeError(f"Dir.host_path takes a str or a path, not {type(self.host_path).__name__}")
        if not host or "\0" in host:
            raise ValueError(f"Dir.host_path must be a path, not {host!r}")
        object.__setattr__(self, "host_path", host)
        _check_guest_path(self.guest_path)
        if self.mode not in ("ro", "rw"):
            raise ValueError(f'Dir.mode must be "ro" or "rw", not {self.mode!r}')
        object.__setattr__(self, "max_bytes", _size("Dir.max_bytes", self.max_bytes))

    def guest_path_bytes(self) -> bytes:
        """As the guest sees it."""
        return _encoded("Dir.guest_path", self.guest_path)


def _check_guest_path(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(f"Dir.guest_path takes a str, not {type(path).__name__}")
    if not path or "\0" in path:
        raise ValueError(f"Dir.guest_path must be a path, not {path!r}")
    if ".." in path.split("/"):
        raise ValueError(f'Dir.guest_path must not contain "..": {path!r}')
    if len(_encoded("Dir.guest_path", path)) > MAX_PATH:
        raise ValueError(f"Dir.guest_path has more than {MAX_PATH:,} bytes")


def _place(guest_path: str) -> str:
    """Where a C library in the guest finds it: "data", "./data/" and "/data" are one place."""
    return posixpath.normpath("/" + guest_path).lstrip("/")


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock of the guest's own, the same in each run: it shows `start_ns` nanoseconds since 1970, each look at it
    moves it on by `step_ns` (0: it stands still), and a sleep by what was slept, at once. The monotonic clock goes with
    it, from 0. Raises ValueError for what is not an integer from 0 to 2**64 - 1."""

    start_ns: int = 0
    step_ns: int = 0

    def __post_init__(self) -> None:
        for name in ("start_ns", "step_ns"):
            object.__setattr__(self, name, _integer(f"Clock.{name}", getattr(self, name), _U64))


@dataclass(frozen=True, slots=True)
class Wasi:
    """The grants of one instance. Raises TypeError or ValueError, saying what is wrong.

    args: the program's arguments, its name first. env: its environment. Together at most 2 MiB.
    stdin: bytes (default: none, so that it ends at once), a binary file object, or a file descriptor.
    stdout, stderr: None (default): captured, for `RunResult`. Or where it goes as it comes: a function of bytes,
        a binary file object, or a file descriptor.
    stdout_bytes, stderr_bytes: how much is captured, default 1 MiB each; the guest does not notice when what comes
        after that is dropped, `RunResult.truncated` tells. 0 to 16 TiB. What is not captured is not limited.
    dirs: directories (`Dir`); no two may overlap in the guest.
    clock: None (default): the real time. Or a `Clock`.
    random_seed: None (default): the kernel's random numbers, different in each instance. Or an integer from 0 to
        2**64 - 1, from which they all follow: never for a guest that makes keys.
    """

    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    stdin: Any = b""
    dirs: Sequence[Dir] = ()
    stdout_bytes: int = 1 << 20
    stderr_bytes: int = 1 << 20
    stdout: Any = None
    stderr: Any = None
    clock: Clock | None = None
    random_seed: int | None = None

    def __post_init__(self) -> None:
        args = _sequence("args", self.args)
        env = self.env
        if not isinstance(env, Mapping):
            raise TypeError(f"Wasi.env takes a mapping of str to str, not {type(env).__name__}")
        total = sum(_string("args", i, arg) for i, arg in enumerate(args))
        total += sum(_variable(name, value) for name, value in env.items())
        if total > MAX_STRINGS:
            raise ValueError(f"Wasi.args and Wasi.env take {total:,} bytes; at most {MAX_STRINGS:,} are allowed")
        dirs = _sequence("dirs", self.dirs)
        _check_dirs(dirs)
        for name in ("stdout_bytes", "stderr_bytes"):
            size = getattr(self, name)
            if size is None:
                raise ValueError(f"Wasi.{name} must be an integer: what is captured is kept in memory")
            object.__setattr__(self, name, _size(f"Wasi.{name}", size))
        if self.clock is not None and not isinstance(self.clock, Clock):
            raise TypeError(f"Wasi.clock takes a Clock or None, not {type(self.clock).__name__}")
        if self.random_seed is not None:
            object.__setattr__(self, "random_seed", _integer("Wasi.random_seed", self.random_seed, _U64))
        object.__setattr__(self, "stdin", _source(self.stdin))
        object.__setattr__(self, "stdout", _sink("stdout", self.stdout))
        object.__setattr__(self, "stderr", _sink("stderr", self.stderr))
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "env", MappingProxyType(dict(env)))
        object.__setattr__(self, "dirs", dirs)

    def arg_bytes(self) -> list[bytes]:
        """The arguments as the guest sees them, without their closing NUL."""
        return [_encoded("Wasi.args", arg) for arg in self.args]

    def env_bytes(self) -> list[bytes]:
        """NAME=value, as the guest sees them, without their closing NUL."""
        return [_encoded("Wasi.env", f"{name}={value}") for name, value in self.env.items()]


@dataclass(frozen=True, slots=True)
class Output:
    """What a guest wrote to the streams that are captured. `truncated`: something is missing at an end, because a cap
    was met or the worker was killed."""

    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended by itself. A trap or a limit is an error instead, with the output so far as `.output`.

    exit_code: what it passed to `proc_exit`, 0 to 2**32 - 1; 0 when `_start` returned.
    stdout, stderr, truncated: as in `Output`.
    fuel_consumed: of this run; None where it is not metered.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool
    fuel_consumed: int | None


def _sequence(name: str, given: object) -> tuple[Any, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"Wasi.{name} takes a sequence such as a tuple, not {type(given).__name__}")
    return tuple(given)


def _string(name: str, index: int, given: object) -> int:
    """How many bytes it takes in the guest."""
    if not isinstance(given, str):
        raise TypeError(f"Wasi.{name}[{index}] must be a str, not {type(given).__name__}")
    encoded = _encoded(f"Wasi.{name}[{index}]", given)
    if 0 in encoded:
        raise ValueError(f"Wasi.{name}[{index}] must not contain NUL: {_short(given)}")
    return len(encoded) + 1 + _POINTER


def _variable(name: object, value: object) -> int:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"Wasi.env maps str to str, not {type(name).__name__} to {type(value).__name__}")
    if not name or "=" in name or "\0" in name:
        raise ValueError(f'Wasi.env: a name must not be empty, nor contain "=" or NUL: {_short(name)}')
    if "\0" in value:
        raise ValueError(f"Wasi.env[{_short(name)}] must not contain NUL: {_short(value)}")
    return len(_encoded("Wasi.env", f"{name}={value}")) + 1 + _POINTER


def _encoded(what: str, text: str) -> bytes:
    try:
        # As Python has them from a command line: bytes that are no UTF-8 travel as lone surrogates, and back.
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{what} holds a lone surrogate, which UTF-8 cannot carry: {_short(text)}") from None


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "…")


def _check_dirs(dirs: tuple[Any, ...]) -> None:
    if len(dirs) > MAX_DIRS:
        raise ValueError(f"Wasi.dirs holds {len(dirs)} directories; at most {MAX_DIRS} are allowed")
    seen: list[tuple[str, str]] = []
    for item in dirs:
        if not isinstance(item, Dir):
            raise TypeError(f"Wasi.dirs holds Dir, not {type(item).__name__}")
        place = _place(item.guest_path)
        for other, path in seen:
            if _inside(place, other) or _inside(other, place):
                raise ValueError(f"Wasi.dirs: the guest paths {path!r} and {item.guest_path!r} overlap")
        seen.append((place, item.guest_path))


def _inside(inner: str, outer: str) -> bool:
    return not outer or inner == outer or inner.startswith(outer + "/")


def _integer(name: str, given: object, most: int) -> int:
    if isinstance(given, SupportsIndex) and not isinstance(given, bool) and 0 <= operator.index(given) <= most:
        return operator.index(given)
    raise ValueError(f"{name} must be an integer from 0 to {most:,}; got {_digits(given)}")


def _digits(given: object) -> str:
    return repr(given) if not isinstance(given, int) or abs(given) < 1 << 128 else "a far larger integer"


def _size(name: str, given: object) -> int | None:
    return None if given is None else _integer(name, given, MAX_BYTES)


def _source(given: object) -> Any:
    if isinstance(given, bytearray | memoryview):
        return bytes(given)
    if isinstance(given, bytes) or _is_fd("stdin", given):
        return given
    return _binary("stdin", given, "read", "bytes, a binary file object or a file descriptor")


def _sink(name: str, given: object) -> Any:
    if given is None or _is_fd(name, given):
        return given
    if not hasattr(given, "write") and isinstance(given, Callable):  # type: ignore[arg-type]
        return given
    return _binary(name, given, "write", "None, a function, a binary file object or a file descriptor")


def _binary(name: str, given: Any, method: str, wanted: str) -> Any:
    """A file object; of one that was opened as text, such as `sys.stdin`, the binary file behind it."""
    if isinstance(given, io.TextIOBase):
        behind = getattr(given, "buffer", None)
        if behind is None:
            raise TypeError(f"Wasi.{name}: {type(given).__name__} is a text stream; a binary one is needed")
        return behind
    if isinstance(given, str | type) or not callable(getattr(given, method, None)):
        raise TypeError(f"Wasi.{name} takes {wanted}, not {type(given).__name__}")
    return given


def _is_fd(name: str, given: object) -> bool:
    if not isinstance(given, int) or isinstance(given, bool):
        return False
    if not 0 <= given < 2**31:
        raise ValueError(f"Wasi.{name}: {_digits(given)} is no file descriptor")
    return True
