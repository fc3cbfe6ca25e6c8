"""What an idle worker costs in memory: 20 of them at once, each after its first call, against 20 idle bare Pythons.

Proportional memory (PSS: pages shared by n processes count 1/n each) says what one more costs while there are as many;
unique memory (USS) what comes back when one ends. One sample is one process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pdsandbox import I32, Supervisor

from .guests import ADD
from .measure import Bar, Contender, Group, Row, Series, Unmeasurable
from .quiet import Family

_COUNT = 20
_BARE = [sys.executable, "-I", "-S", "-c", "import os; os.write(1, b'!'); os.read(0, 1)"]

SERIES = (
    Series("memory.worker.pss", "idle worker: proportional memory", "bytes"),
    Series("memory.worker.uss", "idle worker: unique memory", "bytes"),
    Series("memory.python.pss", "idle bare Python (-I -S): proportional memory", "bytes", short="python -I -S"),
    Series("memory.python.uss", "idle bare Python (-I -S): unique memory", "bytes", short="python -I -S"),
    Series("memory.server.pss", "the fork server of 20 idle workers: proportional memory", "bytes", side="ours"),
)
ROWS = (
    Row(
        "memory.pss.max",
        "idle worker, PSS, the largest",
        "memory.worker.pss",
        "memory.python.pss",
        statistic="max",
        bar=Bar(4 << 20, "issue 2", of="value"),
    ),
    Row("memory.pss.mean", "idle worker, PSS, mean", "memory.worker.pss", "memory.python.pss", statistic="mean"),
    Row("memory.uss.mean", "idle worker, USS, mean", "memory.worker.uss", "memory.python.uss", statistic="mean"),
)


def proportional(pid: int) -> tuple[int, int]:
    """(PSS, USS) of a process in bytes. Raises Unmeasurable where the kernel does not tell."""
    fields: dict[str, int] = {}
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError as exc:
        raise Unmeasurable(f"/proc/{pid}/smaps_rollup: {exc.strerror}") from exc
    for line in text.splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name.rstrip(":")] = int(value) << 10
    return fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"]


def idle_python() -> subprocess.Popen[bytes]:
    """A bare Python that waits for end of file; leaving it as a context manager closes its pipes and reaps it."""
    child = subprocess.Popen(_BARE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    if child.stdout.read(1) != b"!":
        child.kill()
        child.wait()
        raise RuntimeError("a bare Python did not start")
    return child


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Supervisor(spares=0))
        module = host.compile(ADD)
        workers = [stack.enter_context(host.instantiate(module)) for _ in range(_COUNT)]
        for worker in workers:
            worker.call("add", [I32(1), I32(2)])
        pythons = [stack.enter_context(idle_python()) for _ in range(_COUNT)]
        family = Family(workers[0].pid)
        family.wait_quiet(_COUNT)
        next_worker, next_python = iter(workers), iter(pythons)

        def worker_memory() -> Mapping[str, float]:
            pss, uss = proportional(next(next_worker).pid)
            return {"memory.worker.pss": pss, "memory.worker.uss": uss}

        def python_memory() -> Mapping[str, float]:
            pss, uss = proportional(next(next_python).pid)
            return {"memory.python.pss": pss, "memory.python.uss": uss}

        def server_memory() -> Mapping[str, float]:
            return {"memory.server.pss": proportional(family.server_pid)[0]}

        yield (worker_memory, python_memory, server_memory)


GROUP = Group(
    "memory",
    "memory of idle workers",
    SERIES,
    ROWS,
    _open,
    rounds=_COUNT,
    quick_rounds=_COUNT,
    warmup=0,
    fixed=True,
    caption="What one more worker costs while there are twenty, each after its first call. Proportional: a page "
    "that n processes share counts 1/n each.",
)
