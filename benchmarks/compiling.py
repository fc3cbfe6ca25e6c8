"""Compiling in a disposable process, cold and from the caches, against wasmtime-py compiling in this one.

Each cold sample is a module that no cache has seen: the same code with a different custom section. The real module is
a terminal emulator written in Rust. wasmtime-py has no cache; `Module.deserialize` of what was compiled before is what
one would build one with. From disk means: another supervisor has stored the module, and this one has never seen it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import wasmtime

from pdsandbox import Supervisor

from .guests import ADD, binary, emulator, large, never_seen, plain_engine
from .measure import Contender, Group, Row, Series
from .quiet import Family

_KINDS = {"small": "2 functions", "large": "100 functions", "real": "a terminal emulator, 100 KB"}

SERIES = (
    *(Series(f"compile.{key}", f"Supervisor.compile of a module ({what}), cold") for key, what in _KINDS.items()),
    Series("compile.disk", f"Supervisor(cache_dir=...).compile of a module ({_KINDS['real']}), stored by another"),
    Series("compile.cached", f"Supervisor.compile of a module ({_KINDS['real']}), again"),
    *(
        Series(
            f"wasmtime.compile.{key}", f"wasmtime-py in-process: Module(engine, {what})", short="wasmtime-py in-process"
        )
        for key, what in _KINDS.items()
    ),
    Series(
        "wasmtime.deserialize",
        f"wasmtime-py in-process: Module.deserialize ({_KINDS['real']})",
        short="wasmtime-py deserialize",
    ),
)
ROWS = (
    *(
        Row(f"compile_{key}.wasmtime", f"compile, {what}, cold", f"compile.{key}", f"wasmtime.compile.{key}")
        for key, what in _KINDS.items()
    ),
    Row("compile_disk.wasmtime", f"compile, {_KINDS['real']}, from disk", "compile.disk", "wasmtime.compile.real"),
    Row("compile_disk.deserialize", f"compile, {_KINDS['real']}, from disk", "compile.disk", "wasmtime.deserialize"),
    Row("compile_cached.wasmtime", f"compile, {_KINDS['real']}, cached", "compile.cached", "wasmtime.compile.real"),
    Row("compile_cached.deserialize", f"compile, {_KINDS['real']}, cached", "compile.cached", "wasmtime.deserialize"),
)


def _cold(key: str, wasm: bytes, compile_: Callable[[bytes], object], after: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        fresh = never_seen(wasm)
        started = time.perf_counter()
        module = compile_(fresh)
        taken = time.perf_counter() - started
        del module
        after()
        return {key: taken}

    return sample


def _again(key: str, compile_: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        started = time.perf_counter()
        module = compile_()
        taken = time.perf_counter() - started
        del module
        return {key: taken}

    return sample


@contextlib.contextmanager
def _sharing() -> Iterator[tuple[Supervisor, Supervisor]]:
    """Two supervisors, warm, with one disk cache. Its key is not the user's own."""
    with tempfile.TemporaryDirectory() as base, contextlib.ExitStack() as stack:
        before = os.environ.get("XDG_STATE_HOME")
        os.environ["XDG_STATE_HOME"] = os.path.join(base, "state")
        try:
            hosts = [stack.enter_context(Supervisor(spares=0, cache_dir=os.path.join(base, "cache"))) for _ in "ab"]
        finally:
            if before is None:
                del os.environ["XDG_STATE_HOME"]
            else:
                os.environ["XDG_STATE_HOME"] = before
        for host in hosts:
            host.instantiate(host.compile("(module)")).close()
        yield hosts[0], hosts[1]


def _stored(wasm: bytes, keeper: Supervisor, finder: Supervisor, after: Callable[[], object]) -> Contender:
    def sample() -> Mapping[str, float]:
        fresh = never_seen(wasm)
        keeper.compile(fresh)
        after()
        started = time.perf_counter()
        module = finder.compile(fresh)
        taken = time.perf_counter() - started
        del module
        return {"compile.disk": taken}

    return sample


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    small_wasm, large_wasm, real_wasm = binary(ADD), large(), emulator()
    engine = plain_engine()
    serialized = wasmtime.Module(engine, real_wasm).serialize()
    with Supervisor(spares=0) as host, _sharing() as (keeper, finder):
        with host.instantiate(host.compile(small_wasm)) as instance:
            family = Family(instance.pid)
        with keeper.instantiate(keeper.compile(small_wasm)) as instance:
            keepers = Family(instance.pid)
        compiled = host.compile(real_wasm)
        assert compiled.exports() == [export.name for export in wasmtime.Module(engine, real_wasm).exports]

        def rest() -> None:
            family.wait_quiet(0)

        def plain(wasm: bytes) -> wasmtime.Module:
            return wasmtime.Module(engine, wasm)

        rest()
        yield (
            _cold("wasmtime.compile.small", small_wasm, plain, lambda: None),
            _cold("compile.small", small_wasm, host.compile, rest),
            _cold("wasmtime.compile.large", large_wasm, plain, lambda: None),
            _cold("compile.large", large_wasm, host.compile, rest),
            _cold("wasmtime.compile.real", real_wasm, plain, lambda: None),
            _cold("compile.real", real_wasm, host.compile, rest),
            _again("wasmtime.deserialize", lambda: wasmtime.Module.deserialize(engine, serialized)),
            _stored(real_wasm, keeper, finder, lambda: keepers.wait_quiet(0)),
            _again("compile.cached", lambda: host.compile(real_wasm)),
        )


GROUP = Group(
    "compiling",
    "compiling",
    SERIES,
    ROWS,
    _open,
    rounds=40,
    quick_rounds=5,
    warmup=1,
    caption="In a process of its own that is thrown away, against compiling in-process.",
)
