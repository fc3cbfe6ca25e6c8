"""Throughput of many at once: do workers, their supervisor and its threads get in each other's way?

Two workers that compute, against two processes of plain wasmtime-py that do the same; and short calls by 32 threads
on 32 workers, against 2 threads on 2 workers of the same supervisor. A sample is the throughput of all threads
together, from the moment when all start until the last has finished.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pdsandbox import Supervisor

from .child import Child
from .crunch import check, units_for
from .guests import ADD
from .measure import Bar, Contender, Group, Row, Series
from .metering import FUEL, plain_crunch, worker

_SECONDS = 0.4
# Threads may find a rhythm for some tenths of a second and lose it again, so a sample must outlast it.
_WINDOW_S = 1.0
# Threads look at the clock between blocks of so many calls.
_BLOCK = 20
_FEW, _MANY = 2, 32

_PAIR_SERIES = (
    Series(
        "pair.worker", "two workers, two threads, one computing call each: units of guest work a second", unit="per_s"
    ),
    Series(
        "pair.plain",
        "two processes of plain wasmtime-py, the same work: units a second",
        unit="per_s",
        short="two wasmtime-py processes",
    ),
)
_PAIR_ROWS = (
    Row(
        "pair.throughput",
        "two that compute, together",
        "pair.worker",
        "pair.plain",
        bar=Bar(0.92, "issue 4", least=True),
    ),
)

_CROWD_SERIES = (
    Series("crowd.many", f"{_MANY} workers, {_MANY} threads: add(1, 2), calls a second", unit="per_s"),
    Series(
        "crowd.few",
        f"{_FEW} workers, {_FEW} threads: add(1, 2), calls a second",
        unit="per_s",
        short=f"{_FEW} workers, {_FEW} threads",
        side="ours",
    ),
)
_CROWD_ROWS = (
    Row(
        "crowd.throughput",
        f"short calls, {_MANY} workers and threads",
        "crowd.many",
        "crowd.few",
        bar=Bar(0.80, "issue 4", least=True),
    ),
)


@contextlib.contextmanager
def _open_pair() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child("cruncher")) for _ in range(2)]
        crunches = [stack.enter_context(worker(FUEL)).func("crunch") for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        units = units_for(_SECONDS, plain_crunch(FUEL))

        def workers() -> Mapping[str, float]:
            started = time.perf_counter()
            calls = [pool.submit(crunch, units) for crunch in crunches]
            answers = [call.result() for call in calls]
            taken = time.perf_counter() - started
            return _pair("pair.worker", answers, taken)

        def processes() -> Mapping[str, float]:
            started = time.perf_counter()
            for child in children:
                child.write(str(units))
            answers = [int(child.read()) for child in children]
            taken = time.perf_counter() - started
            return _pair("pair.plain", answers, taken)

        def _pair(key: str, answers: Sequence[int], taken: float) -> Mapping[str, float]:
            for answer in answers:
                check(units, answer)
            return {key: len(answers) * units / taken}

        for child in children:  # it has started and compiled when it answers
            child.write("1")
            check(1, int(child.read()))
        for crunch in crunches:
            check(1, pool.submit(crunch, 1).result())
        yield (processes, workers)


def throughput(adds: Sequence[Callable[[int, int], int]], window_s: float) -> float:
    """Calls a second of one thread for each of `adds`, all together. RuntimeError for a wrong answer."""
    began: list[float] = []
    ready = threading.Barrier(len(adds) + 1, lambda: began.append(time.perf_counter()))
    ended = [0.0] * len(adds)

    def run(number: int, add: Callable[[int, int], int]) -> int:
        ready.wait()
        # One window for all: a thread that had to wait for its turn does not get a longer one.
        until, calls = began[0] + window_s, 0
        while time.perf_counter() < until:
            for n in range(_BLOCK):
                if add(n, 1) != n + 1:
                    raise RuntimeError("add gave a wrong answer")
            calls += _BLOCK
        ended[number] = time.perf_counter()
        return calls

    with ThreadPoolExecutor(len(adds)) as pool:
        running = [pool.submit(run, number, add) for number, add in enumerate(adds)]
        try:
            ready.wait()
        except BaseException:  # interrupted: leaving the pool would wait for threads that wait for us
            ready.abort()
            raise
        calls = sum(call.result() for call in running)
    return calls / (max(ended) - began[0])


@contextlib.contextmanager
def _open_crowd() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Supervisor(spares=0))
        module = host.compile(ADD)
        adds = [stack.enter_context(host.instantiate(module)).func("add") for _ in range(_MANY)]
        yield (
            lambda: {"crowd.few": throughput(adds[:_FEW], _WINDOW_S)},
            lambda: {"crowd.many": throughput(adds, _WINDOW_S)},
        )


PAIR = Group(
    "pair",
    "two that compute",
    _PAIR_SERIES,
    _PAIR_ROWS,
    _open_pair,
    rounds=12,
    quick_rounds=3,
    warmup=0,
    caption="Two guests that compute, on a core each.",
)
CROWD = Group(
    "crowd",
    "many workers at once",
    _CROWD_SERIES,
    _CROWD_ROWS,
    _open_crowd,
    rounds=12,
    quick_rounds=2,
    warmup=0,
    caption="Short calls from as many threads as workers.",
)
