"""The entry point. Ctrl-C is caught here, around everything, the imports too; the rest is `shell`.

Imports nothing at its top but what the interpreter has loaded anyway.
"""

from __future__ import annotations

import os
import sys
import time

__all__ = ["BEGUN", "main"]

#: When this command began, by `time.perf_counter`.
BEGUN = time.perf_counter()

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main(args: list[str] | None = None) -> int:
    """Run the command line `args` (default: this process's) and return its exit code."""
    try:
        if args is None and sys.argv[1:2] == ["run"]:
            begin_ahead()
        try:
            from .shell import run

            return run(sys.argv[1:] if args is None else args)
        finally:
            end_ahead()
    except KeyboardInterrupt:
        try:
            os.write(2, b"pdsandbox: interrupted\n")
        except OSError:
            pass
        # At once, and with this very code: CPython remembers a KeyboardInterrupt that passed through exec(), as in
        # the making of a dataclass, and would end by SIGINT instead. Workers were closed on the way here; one whose
        # supervisor was only just being made ends with this process.
        os._exit(_INTERRUPTED)


def begin_ahead() -> None:
    """Start what a run will need, while this process is still importing what it needs itself."""
    import gc

    from ..supervisor import launch
    from .standard import occupy_closed

    gc.disable()  # until the guest runs: nothing is garbage yet
    occupy_closed()
    launch.ahead()


def end_ahead() -> None:
    """If that came to nothing, end it."""
    launch = sys.modules.get("pdsandbox.supervisor.launch")
    if launch is not None:
        launch.drop()
