"""How much is fuzzed, how one round is done again, and what must not have grown when it is over.

`PDSANDBOX_FUZZ_TIMES=50` does 50 times as many rounds, `PDSANDBOX_FUZZ_SEED=7` others than CI does. A round that failed
is named by its seed: `PDSANDBOX_FUZZ_ROUND=<seed>` does that one alone.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from leaks import descendants, fds, wait_until

TIMES = int(os.environ.get("PDSANDBOX_FUZZ_TIMES", "1"))
_FIRST = int(os.environ.get("PDSANDBOX_FUZZ_SEED", "0")) << 40
_ONLY = os.environ.get("PDSANDBOX_FUZZ_ROUND")


def seeds(part: int, parts: int, rounds: int) -> Iterator[int]:
    """The seeds of one of `parts` parts, which together have `rounds` times TIMES; or the one that was asked for."""
    if _ONLY is not None:
        if part == 0:
            yield int(_ONLY)
        return
    yield from range(_FIRST + part, _FIRST + rounds * TIMES, parts)


def selected() -> bool:
    """Whether one round was asked for: then nothing can be said of all."""
    return _ONLY is not None


@contextmanager
def naming(seed: int, describe: Callable[[], str]) -> Iterator[None]:
    """Whatever goes wrong inside says how to do it again."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"PDSANDBOX_FUZZ_ROUND={seed} does this round again: {describe()}")
        raise


def _trim() -> None:
    """Give back what is free: the allocator keeps what one large frame took."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Growth:
    """What this process has now, to be compared with what it has later. `warm` first: caches fill in the first rounds.

    Resident memory is this process's alone; a leak of one page a round would be 4 MiB in 1,000 rounds.
    """

    def __init__(self) -> None:
        _trim()
        self._fds = len(fds())
        self._children = len(descendants())
        self._threads = threading.active_count()
        self._resident = psutil.Process().memory_info().rss

    def check(self, resident_bytes: int, settle: Callable[[], object] = lambda: None) -> None:
        """No more descriptors, processes and threads than before, and at most `resident_bytes` more memory.

        `settle` does something small: what the last rounds still held is let go of by then.
        """
        _trim()
        assert wait_until(lambda: len(fds()) <= self._fds), f"descriptors: {len(fds())} after {self._fds}: {fds()}"
        assert wait_until(lambda: len(descendants()) <= self._children), "processes were left"
        assert threading.active_count() <= self._threads, threading.enumerate()
        grown = 0
        for _ in range(20):
            settle()
            _trim()
            grown = psutil.Process().memory_info().rss - self._resident
            if grown <= resident_bytes:
                return
        pytest.fail(f"{grown / (1 << 20):.1f} MiB more memory than before")
