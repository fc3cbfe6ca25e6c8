"""From nothing to a first answer: an instance of ours, and a pool, a plugin or a process of others.

Ours: a Supervisor that runs already and has compiled the module before, which is how a service starts one more
instance; and, beside it, a Supervisor that starts from nothing. Every rival compiles its tiny module (about a
millisecond), each in its own way. Off the clock: ending it again.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import wasmtime

from pdsandbox import Supervisor

from . import extisms
from .guests import ADD, binary, plain_engine
from .measure import Contender, Group, Row, Series
from .naive import FUEL_FOREVER
from .pools import SETUP, Futures, Loky, NaivePipe, Pebble, Pool
from .quiet import Family

# One process a call, as a script would do it: the module's bytes on standard input, the sum on standard output.
_ONE_CALL = f"""
import sys
from benchmarks import naive
naive.prepare(sys.stdin.buffer.read(), {SETUP[1]})
print(naive.add(1, 2))
"""
_PATIENCE_S = 60.0

_OURS = "peerstarts.instance"
SERIES = (
    Series(_OURS, "Supervisor(spares=0): instantiate a cached module, first func(1, 2)"),
    Series("peerstarts.supervisor", "Supervisor() from nothing: compile, instantiate, first func(1, 2)"),
    Series(
        "peerstarts.wasmtime",
        "wasmtime-py in-process: Store, Instance of a compiled module, first add(store, 1, 2)",
        short="wasmtime-py in-process",
    ),
    Series("peerstarts.extism", "Extism in-process: Plugin(wasm), first call", short="Extism in-process"),
    Series(
        "peerstarts.pipe_fork",
        "multiprocessing.Process (fork) with a Pipe, first answer",
        short="multiprocessing.Pipe worker, fork",
    ),
    Series(
        "peerstarts.pebble_fork",
        "pebble.ProcessPool(1) (fork), first result",
        short="pebble, fork",
    ),
    Series(
        "peerstarts.futures_fork",
        "ProcessPoolExecutor(1) (fork), first result",
        short="ProcessPoolExecutor, fork",
    ),
    Series(
        "peerstarts.futures_spawn",
        "ProcessPoolExecutor(1) (spawn), first result",
        short="ProcessPoolExecutor, spawn",
    ),
    Series("peerstarts.loky", "loky.ProcessPoolExecutor(1), first result", short="loky"),
    Series(
        "peerstarts.script",
        "a new Python that imports wasmtime-py, compiles, calls, prints and ends",
        short="one Python process a call",
    ),
)
ROWS = (
    *(
        Row(f"peerstart.{series.key.removeprefix('peerstarts.')}", "start, first answer", _OURS, series.key)
        for series in SERIES[2:]
    ),
    *(
        Row(f"peerstart_supervisor.{name}", "start from nothing, first answer", "peerstarts.supervisor", key)
        for name, key in (("futures_spawn", "peerstarts.futures_spawn"), ("script", "peerstarts.script"))
    ),
)


def _pool(key: str, make: Callable[[], Pool]) -> Contender:
    def sample() -> Mapping[str, float]:
        started = time.perf_counter()
        with make() as pool:
            answer = pool.call(1, 2)
            taken = time.perf_counter() - started
        return _checked(key, answer, taken)

    return sample


def _checked(key: str, answer: Any, taken: float) -> Mapping[str, float]:
    if answer != 3:
        raise RuntimeError(f"{key}: 1 + 2 gave {answer}")
    return {key: taken}


def _supervisor() -> Mapping[str, float]:
    started = time.perf_counter()
    with Supervisor() as host, host.instantiate(host.compile(ADD)) as instance:
        answer = instance.func("add")(1, 2)
        taken = time.perf_counter() - started
    return _checked("peerstarts.supervisor", answer, taken)


def _extism() -> Mapping[str, float]:
    started = time.perf_counter()
    with extisms.plugin(limited=False) as plugin:
        answer = extisms.add(plugin, 1, 2)
        taken = time.perf_counter() - started
    return _checked("peerstarts.extism", answer, taken)


def _script() -> Mapping[str, float]:
    command = [sys.executable, "-c", _ONE_CALL]
    started = time.perf_counter()
    done = subprocess.run(command, input=SETUP[0], stdout=subprocess.PIPE, timeout=_PATIENCE_S, check=True)
    return _checked("peerstarts.script", int(done.stdout), time.perf_counter() - started)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    wasm = binary(ADD)
    engine = plain_engine()
    compiled = wasmtime.Module(engine, wasm)

    def plain() -> Mapping[str, float]:
        started = time.perf_counter()
        store = wasmtime.Store(engine)
        store.set_fuel(FUEL_FOREVER)
        add: Any = wasmtime.Instance(store, compiled, []).exports(store)["add"]
        answer = add(store, 1, 2)
        return _checked("peerstarts.wasmtime", answer, time.perf_counter() - started)

    with Supervisor(spares=0) as host:
        module = host.compile(wasm)
        with host.instantiate(module) as first:
            family = Family(first.pid)

        def instance() -> Mapping[str, float]:
            family.wait_quiet(0)
            started = time.perf_counter()
            with host.instantiate(module) as isolated:
                answer = isolated.func("add")(1, 2)
                taken = time.perf_counter() - started
            family.wait_quiet(0)
            return _checked(_OURS, answer, taken)

        yield (
            instance,
            plain,
            _extism,
            _pool("peerstarts.pipe_fork", lambda: NaivePipe("fork")),
            _pool("peerstarts.pebble_fork", lambda: Pebble("fork")),
            _pool("peerstarts.futures_fork", lambda: Futures("fork")),
            _pool("peerstarts.futures_spawn", lambda: Futures("spawn")),
            _pool("peerstarts.loky", Loky),
            _supervisor,
            _script,
        )


GROUP = Group(
    "peerstarts",
    "first answers: pdsandbox and others",
    SERIES,
    ROWS,
    _open,
    rounds=20,
    quick_rounds=2,
    warmup=1,
    caption="From nothing, or from a compiled module, to the first answer. In-process plugins start no process.",
)
