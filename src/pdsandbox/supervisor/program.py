"""A guest in a worker as a program: its one run as a command, and what it has written.

Used by the holder of the turn only. What a worker said before it came to its end is still to be had.
"""

from __future__ import annotations

import time

from ..calls import check_command
from ..errors import GuestExit, WasmError
from ..wasi import Output, RunResult
from .calling import Export
from .conversation import Conversation

__all__ = ["run", "written"]


def run(
    talk: Conversation, start: Export, began: float, *, has_run: bool, fuel: int | None, wall_s: float | None
) -> RunResult:
    """Call `start`, a command's `_start`, in a run that began at that time. Raises CallError for what is no command, or
    `has_run`; otherwise what a call raises, with what was written as `.output`."""
    check_command(start.type, has_run=has_run)
    before, code = talk.fuel.used, 0
    try:
        talk.call(start, (), began, wall_s, talk.fuel.begin(fuel), True)
    except GuestExit as exc:
        code = exc.exit_code or 0
    except WasmError as exc:
        exc.output = written(talk, wall_s)
        raise
    used = talk.fuel.used - before if talk.fuel.metered else None
    output = written(talk, wall_s)
    return RunResult(code, output.stdout, output.stderr, output.truncated, used)


def written(talk: Conversation, wall_s: float | None) -> Output:
    """What was captured of the guest's streams since the last time; the worker learns it, within `wall_s`."""
    streams = talk.serving.streams
    if streams is None:
        return Output()
    if talk.busy:
        return streams.last_words(cut=True)
    output, any_came = streams.take()
    if any_came and talk.handle.alive and not talk.closed:
        # Nothing runs, so the worker is not judged now: what has come is not to be lost for what it is found to use.
        watch, talk.busy = talk.watch(time.monotonic(), wall_s), True
        try:
            streams.tell_taken(watch)
        except WasmError as exc:
            exc.output = output
            raise
        talk.busy = False
    return output
