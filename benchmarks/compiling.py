"""Compiling in a disposable process, cold and from the cache, against wasmtime-py compiling in this one.

Each cold sample is a module that no cache has seen: the same code with a different custom section.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import wasmtime

from pdsandbox import Supervisor

from .guests import ADD, binary, large, never_seen, plain_engine
from .measure import Contender, Group, Row, Series
from .quiet import Family

SERIES = (
    Series("compile.small", "Supervisor.compile of a module with two functions, cold"),
    Series("compile.large", "Supervisor.compile of a module with 100 functions, cold"),
    Series("compile.cached", "Supervisor.compile of a module with 100 functions, again"),
    Series(
        "wasmtime.compile.small",
        "wasmtime-py in-process: Module(engine, two functions)",
        short="wasmtime-py in-process",
    ),
    Series(
        "wasmtime.compile.large",
        "wasmtime-py in-process: Module(engine, 100 functions)",
        short="wasmtime-py in-process",
    ),
)
ROWS = (
    Row("compile_small.wasmtime", "compile, 2 functions, cold", "compile.small", "wasmtime.compile.small"),
    Row("compile_large.wasmtime", "compile, 100 functions, cold", "compile.large", "wasmtime.compile.large"),
    Row("compile_cached.wasmtime", "compile, 100 functions, cached", "compile.cached", "wasmtime.compile.large"),
)


def _timed(key: str, wasm: bytes, compile_: Callable[[bytes], object], after: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        fresh = never_seen(wasm)
        started = time.perf_counter()
        module = compile_(fresh)
        taken = time.perf_counter() - started
        del module
        after()
        return {key: taken}

    return sample


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    small_wasm, large_wasm = binary(ADD), large()
    engine = plain_engine()
    with Supervisor(spares=0) as host:
        with host.instantiate(host.compile(small_wasm)) as instance:
            family = Family(instance.pid)
        host.compile(large_wasm)

        def rest() -> None:
            family.wait_quiet(0)

        def plain(wasm: bytes) -> wasmtime.Module:
            return wasmtime.Module(engine, wasm)

        def cached() -> Mapping[str, float]:
            started = time.perf_counter()
            host.compile(large_wasm)
            return {"compile.cached": time.perf_counter() - started}

        rest()
        yield (
            _timed("wasmtime.compile.small", small_wasm, plain, lambda: None),
            _timed("compile.small", small_wasm, host.compile, rest),
            _timed("wasmtime.compile.large", large_wasm, plain, lambda: None),
            _timed("compile.large", large_wasm, host.compile, rest),
            cached,
        )


GROUP = Group("compiling", "compiling", SERIES, ROWS, _open, rounds=40, quick_rounds=10, warmup=2)
