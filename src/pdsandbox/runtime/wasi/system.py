"""One guest's WASI: what its calls work on, made of its grants.

Its descriptors are handed over open: this module neither opens a host path nor knows who did.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...externs import ImportType
from ...wasi import Output as Written
from ...wasi import Wasi
from ..guest import Guest, RawFunction
from . import streams
from .beneath import Opener, opener
from .clocks import clocks_of
from .entropy import entropy_of
from .memory import Memory
from .quota import Quota
from .table import Directory, Grant, Stdin, Stdout, Table

__all__ = ["Streams", "System"]

_U64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Streams:
    """The three standard streams, ready."""

    stdin: streams.Input
    stdout: streams.Output
    stderr: streams.Output

    def written(self) -> Written:
        """What was recorded since the last time."""
        kept = [
            stream.take() if isinstance(stream, streams.Recorder) else (b"", False)
            for stream in (self.stdout, self.stderr)
        ]
        return Written(kept[0][0], kept[1][0], kept[0][1] or kept[1][1])


class System:
    """What the calls of one guest work on.

    args, env   NUL is not in them, and not at their end
    open_at     opens a path beneath a directory
    """

    def __init__(self, guest: Guest, wasi: Wasi, standard: Streams, dirs: Sequence[int]) -> None:
        """`dirs`: a descriptor for each of `wasi.dirs`; they are ours from now on."""
        self.memory = Memory(guest)
        self.args = wasi.arg_bytes()
        self.env = wasi.env_bytes()
        self.clocks = clocks_of(wasi.clock)
        self.entropy = entropy_of(wasi.random_seed)
        self.standard = standard
        self.table = table = Table()
        self._secret = int.from_bytes(self.entropy(8), "little")
        for descriptor in (Stdin(standard.stdin), Stdout(standard.stdout), Stdout(standard.stderr)):
            table.add(descriptor)
        for granted, fd in zip(wasi.dirs, dirs, strict=True):
            quota = None if granted.max_bytes is None else Quota(granted.max_bytes)
            grant = Grant(writable=granted.mode == "rw", quota=quota)
            table.add(Directory(fd, grant, name=granted.guest_path_bytes()))
        self.open_at: Opener = opener(dirs[0]) if dirs else _no_directory

    def inode(self, device: int, inode: int) -> int:
        """A number for this file that is another in each instance: the host's own would tell about the host."""
        return _mixed(inode ^ _mixed(device ^ self._secret))

    def bind(self, wanted: ImportType) -> RawFunction | None:
        """What answers an import, if it is of WASI preview 1."""
        from .link import bind  # it knows all calls, and they know this class

        return bind(self, wanted)

    def close(self) -> None:
        """When the guest has gone."""
        self.table.close_all()

    def __del__(self) -> None:
        if hasattr(self, "table"):
            self.close()


def _mixed(number: int) -> int:
    """A one-to-one mapping of 64 bits (the finaliser of SplitMix64): within one device no two files become one."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _U64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _U64
    return number ^ number >> 31


def _no_directory(dirfd: int, path: bytes, flags: int, mode: int = 0) -> int:
    raise OSError(9, os.strerror(9))
