"""A `Wasi` as the supervisor holds it while it makes an instance: streams, directories, and what the worker is told."""

from __future__ import annotations

import os

from ..errors import Cause, InstantiationError
from ..grants import open_dirs
from ..protocol import messages as m
from ..wasi import Wasi
from .links import Links
from .streams import Streams

__all__ = ["Granted", "grant"]


class Granted:
    """Whatever it holds open is closed at the latest with it.

    spec     what LOAD says
    dirs     a descriptor for each directory
    changes  whether the guest may leave traces that nobody sees: then it must not be started again after a failure
    """

    dirs: tuple[int, ...] = ()

    def __init__(self, wasi: Wasi) -> None:
        """InstantiationError, USAGE, for a directory that cannot be granted."""
        self.dirs = tuple(open_dirs(wasi))
        self.changes = any(item.mode == "rw" for item in wasi.dirs)
        self.streams = Streams(wasi, Links(wasi.dirs, self.dirs) if self.changes else None)
        self.spec = m.WasiSpec(
            tuple(wasi.arg_bytes()),
            tuple(wasi.env_bytes()),
            None if wasi.clock is None else (wasi.clock.start_ns, wasi.clock.step_ns),
            wasi.random_seed,
            self.streams.specs(),
            tuple([m.DirSpec(item.guest_path_bytes(), item.mode == "rw", item.max_bytes) for item in wasi.dirs]),
        )

    def close(self) -> None:
        """Once the worker has its own. Twice is allowed."""
        dirs, self.dirs = self.dirs, ()
        for fd in dirs:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def grant(wasi: object) -> Granted:
    """InstantiationError for what is no `Wasi`, or cannot be granted."""
    if not isinstance(wasi, Wasi):
        raise InstantiationError(f"wasi must be a Wasi, not {type(wasi).__name__}", cause=Cause.USAGE)
    return Granted(wasi)
