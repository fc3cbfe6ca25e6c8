"""What `run` grants a WASI guest: the streams of this command, and what the command line says; nothing by itself.

The guest reads and writes the descriptors of this process: no byte is read before the guest asks for it, and none is
kept. With --json, what it writes is kept for the object at the end.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..wasi import Clock, Wasi
from .options import misuse
from .output import OutputGone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import Line

__all__ = ["ends_with_its_reader", "wasi"]


def wasi(line: Line, words: list[str]) -> Wasi:
    """The grants of `line` for a program with these arguments. Failure for what cannot be granted."""
    values = line.values
    name = values.get("--argv0", os.path.basename(line.file))
    given: dict[str, Any] = {"stdin": 0, "stdout": 1, "stderr": 2}
    if line.given("--json"):
        given = {"stdin": 0}
        for flag, field in (("--stdout-bytes", "stdout_bytes"), ("--stderr-bytes", "stderr_bytes")):
            if flag in values:
                given[field] = values[flag]
    if "--clock" in values:
        given["clock"] = Clock(*values["--clock"])
    try:
        return Wasi(
            args=(name, *words),
            env=dict(values.get("--env", ())),
            dirs=tuple(values.get("--dir", ())),
            random_seed=values.get("--seed"),
            **given,
        )
    except ValueError as exc:
        raise misuse(str(exc)) from None


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """While this lasts, a write to standard output or error whose reader has left raises OutputGone, as it would end
    any other program: a guest that does not look at what its writes return would go on for ever."""

    def left(_number: int, _frame: object) -> None:
        poll = select.poll()
        for fd in (1, 2):
            poll.register(fd, 0)
        if any(mask & select.POLLERR for _, mask in poll.poll(0)):
            raise OutputGone("its reader left", broken=True)

    try:
        before = signal.signal(signal.SIGPIPE, left)
    except ValueError:  # not the main thread: then the guest sees EPIPE, and decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)
