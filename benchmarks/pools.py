"""The rivals that call wasmtime-py in another process, each through its own public API, behind one small interface.

A pool of one process, whose initializer compiles the module: what a careful user would write. `close` ends its
process. multiprocessing's and loky's resource trackers, one each, idle on until the harness ends.
"""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, Literal, Self

from pdsandbox import Limits

from . import naive
from .guests import ADD, binary

Method = Literal["fork", "spawn"]
#: What `naive.prepare` gets.
SETUP = (binary(ADD), Limits().stack_bytes)
# Ending an idle process takes milliseconds; more only when something is badly wrong.
_END_S = 10.0


class Pool(ABC):
    """A context manager whose `call(a, b)` adds in another process; the first one waits for that to have started."""

    call: Callable[[int, int], Any]

    @abstractmethod
    def close(self) -> None:
        """End the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class Futures(Pool):
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self, method: Method) -> None:
        context = multiprocessing.get_context(method)
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=naive.prepare, initargs=SETUP)
        self.call = lambda a, b: self._pool.submit(naive.add, a, b).result()

    def close(self) -> None:
        self._pool.shutdown()


class PlainPool(Pool):
    """multiprocessing.Pool."""

    def __init__(self, method: Method) -> None:
        context: Any = multiprocessing.get_context(method)
        self._pool = context.Pool(1, naive.prepare, SETUP)
        self.call = lambda a, b: self._pool.apply(naive.add, (a, b))

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Loky(Pool):
    """loky.ProcessPoolExecutor, with loky's own way of starting a process."""

    def __init__(self) -> None:
        import loky

        self._pool = loky.ProcessPoolExecutor(1, initializer=naive.prepare, initargs=SETUP)
        self.call = lambda a, b: self._pool.submit(naive.add, a, b).result()

    def close(self) -> None:
        self._pool.shutdown()


class Pebble(Pool):
    """pebble.ProcessPool, each call with the same 5 s deadline that pdsandbox's has by default."""

    def __init__(self, method: Method) -> None:
        import pebble

        context = multiprocessing.get_context(method)
        self._pool = pebble.ProcessPool(1, initializer=naive.prepare, initargs=SETUP, context=context)
        wall_s = Limits().wall_s
        self.call = lambda a, b: self._pool.schedule(naive.add, args=(a, b), timeout=wall_s).result()

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class NaivePipe(Pool):
    """A process and a multiprocessing.Pipe: no pool, no deadline, no recovery."""

    def __init__(self, method: Method) -> None:
        context: Any = multiprocessing.get_context(method)
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=naive.serve, args=(theirs, *SETUP), daemon=True)
        try:
            self._process.start()
        except BaseException:
            self._ours.close()
            raise
        finally:
            theirs.close()

        def call(a: int, b: int) -> Any:
            self._ours.send((a, b))
            return self._ours.recv()

        self.call = call

    def close(self) -> None:
        try:
            self._ours.send(None)
        except BrokenPipeError:
            pass  # it has ended by itself
        self._ours.close()
        self._process.join(_END_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()
