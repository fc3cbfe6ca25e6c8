"""What the examples cost: the time to a first result, and each script after that. Prints the table in README.md.

A sample is a script's result as a service gets it, from the same functions that the examples are made of.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import untrusted_javascript as javascript
import untrusted_python as python

from pdsandbox import Supervisor, Wasi, WasmModule

FIRSTS = 5
SCRIPTS = 100


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def first_result(example: Any, wasm: bytes, script: str, cache: Path | None) -> float:
    """From nothing, no fork server, to the first script's result."""

    def work() -> None:
        with Supervisor(limits=example.BUDGET, cache_dir=cache) as host:
            assert example.run_script(host, host.compile(wasm), script, {}).value == 42

    return seconds(work)


def each_script(example: Any, host: Supervisor, module: WasmModule, script: str) -> float:
    """The median of many, one after the other, each in a worker of its own."""

    def work() -> None:
        assert example.run_script(host, module, script, {}).value == 42

    return statistics.median(seconds(work) for _ in range(SCRIPTS))


def reused(host: Supervisor, module: WasmModule, script: str) -> float:
    """The same in one worker, where QuickJS starts anew for each script: only for scripts that trust each other."""
    results: list[object] = []
    line = javascript.Line({"begin": lambda: {"script": script, "offers": []}, "result": results.append})
    with host.instantiate(module, wasi=Wasi(stdin=line, stderr=line)) as instance:
        arguments = javascript.put_arguments(instance, ["qjs", "-m", "-e", javascript.PRELUDE])
        start, destroy = instance.func("qjs_init_argv"), instance.func("qjs_destroy")

        def work() -> None:
            assert start(*arguments) == 0
            assert results.pop() == 42
            destroy()

        return statistics.median(seconds(work) for _ in range(SCRIPTS))


def host_call(example: Any, host: Supervisor, module: WasmModule, script: str) -> float:
    """One call of an offered function: a script that makes 1,000, beside one that makes none."""

    def took(count: int) -> float:
        text = script.format(count)
        runs = (seconds(lambda: example.run_script(host, module, text, {"ask": lambda: 42})) for _ in range(FIRSTS))
        return statistics.median(runs)

    return (took(1000) - took(0)) / 1000


def rows() -> Iterator[tuple[str, float | None, float | None]]:
    """(what, seconds in MicroPython, seconds in QuickJS)"""
    kinds = (
        (python, python.MICROPYTHON.read_bytes(), "result = 6 * 7", "for _ in range({}): ask()"),
        (javascript, javascript.QUICKJS.read_bytes(), "6 * 7", "for (let n = 0; n < {}; n++) ask()"),
    )
    cold: list[float] = []
    cached: list[float] = []
    each: list[float] = []
    calls: list[float] = []
    for example, wasm, script, asking in kinds:
        with tempfile.TemporaryDirectory() as name:
            cache = Path(name)
            cold.append(statistics.median(first_result(example, wasm, script, None) for _ in range(FIRSTS)))
            first_result(example, wasm, script, cache)
            cached.append(statistics.median(first_result(example, wasm, script, cache) for _ in range(FIRSTS)))
        with Supervisor(limits=example.BUDGET) as host:
            module = host.compile(wasm)
            each.append(each_script(example, host, module, script))
            calls.append(host_call(example, host, module, asking))
    with Supervisor(limits=javascript.BUDGET) as host:
        again = reused(host, host.compile(javascript.QUICKJS.read_bytes()), "6 * 7")
    yield "first result of a supervisor, compiling", cold[0], cold[1]
    yield "first result, compiled before (`cache_dir=`)", cached[0], cached[1]
    yield "each script, in a worker of its own", each[0], each[1]
    yield "each script, in the worker of the one before", None, again
    yield "one call of an offered function", calls[0], calls[1]


def shown(value: float | None) -> str:
    """In the unit that fits."""
    if value is None:
        return "–"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e6:.0f} µs" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def main() -> None:
    """Measure, and print the table."""
    print("| | MicroPython | QuickJS |\n|---|---|---|")
    for what, in_python, in_javascript in rows():
        print(f"| {what} | {shown(in_python)} | {shown(in_javascript)} |")


if __name__ == "__main__":
    main()
