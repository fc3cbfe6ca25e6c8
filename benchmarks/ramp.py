"""How many idle workers fit? A hundred are started one after the other, and what they take in all is divided by them.

Proportional memory (PSS) of all workers and their fork server together counts each page once, shared or not, so the sum
is what the machine really gave. Filling it up would only tell when the kernel starts to swap. The baseline is the
same sum over as many bare Pythons.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from pdsandbox import I32, Supervisor, WasmInstance, WasmModule

from .guests import ADD
from .measure import Contender, Group, Row, Series
from .memory import idle_python, proportional
from .quiet import Family

_COUNT = 100
# So many starts at either end of the ramp are compared, and so many times is the memory added up.
_ENDS = 10
_GIB = 1 << 30

SERIES = (
    Series("ramp.start.last", f"cached module to first answer, without a spare: the last {_ENDS} of {_COUNT} workers"),
    Series("ramp.start.first", f"the same: the first {_ENDS}", short=f"start, the first {_ENDS}", side="ours"),
    Series("ramp.each", f"memory of {_COUNT} idle workers and their fork server, for each worker", "bytes"),
    Series(
        "ramp.each.python",
        f"memory of {_COUNT} idle bare Pythons (-I -S), for each",
        "bytes",
        short=f"{_COUNT} idle bare Pythons, for each",
    ),
    Series("ramp.fit", "idle workers in a GiB of memory, by that", "count"),
    Series("ramp.fit.python", "idle bare Pythons in a GiB of memory", "count", short="idle bare Pythons in a GiB"),
)
ROWS = (
    Row("ramp.fit", "idle workers in a GiB", "ramp.fit", "ramp.fit.python"),
    Row("ramp.each", f"one of {_COUNT} idle workers, all counted", "ramp.each", "ramp.each.python"),
    Row("ramp.start", f"start, {_COUNT - _ENDS} workers running", "ramp.start.last", "ramp.start.first"),
)


def _start(host: Supervisor, module: WasmModule, stack: contextlib.ExitStack) -> tuple[WasmInstance, float]:
    started = time.perf_counter()
    instance = host.instantiate(module)
    stack.callback(instance.close)
    answer = instance.call("add", [I32(1), I32(2)])
    taken = time.perf_counter() - started
    if answer != [I32(3)]:
        raise RuntimeError(f"1 + 2 gave {answer}")
    return instance, taken


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Supervisor(spares=0))
        module = host.compile(ADD)
        with host.instantiate(module) as first:  # the fork server's own start is no worker's
            family = Family(first.pid)
        family.wait_quiet(0)
        started = [_start(host, module, stack) for _ in range(_COUNT)]
        workers = family.wait_quiet(_COUNT)
        pythons = [stack.enter_context(idle_python()) for _ in range(_COUNT)]
        first_times = iter([taken for _, taken in started[:_ENDS]])
        last_times = iter([taken for _, taken in started[-_ENDS:]])

        def starts() -> Mapping[str, float]:
            return {"ramp.start.first": next(first_times), "ramp.start.last": next(last_times)}

        def worker_memory() -> Mapping[str, float]:
            total = sum(proportional(pid)[0] for pid in (family.server_pid, *workers))
            return {"ramp.each": total / _COUNT, "ramp.fit": _GIB * _COUNT / total}

        def python_memory() -> Mapping[str, float]:
            total = sum(proportional(python.pid)[0] for python in pythons)
            return {"ramp.each.python": total / _COUNT, "ramp.fit.python": _GIB * _COUNT / total}

        yield (starts, python_memory, worker_memory)


GROUP = Group(
    "ramp",
    "a hundred workers",
    SERIES,
    ROWS,
    _open,
    rounds=_ENDS,
    quick_rounds=_ENDS,
    warmup=0,
    fixed=True,
    caption="A hundred workers at once, and what they cost with their fork server.",
)
