"""Damaged modules through compile, instantiate and call: typed errors in time, and nothing grows, here or elsewhere."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from fuzz_effort import TIMES, Growth, naming, seeds
from fuzz_mutations import Dice
from fuzz_stage import check_error
from fuzz_wasm import corpus, mutate

from pdsandbox import HostFunction, Limits, Supervisor, WasmError, WasmImports
from pdsandbox import errors as e
from pdsandbox.errors import Cause
from pdsandbox.externs import FuncType

PARTS = 2 * TIMES
ROUNDS = 500
MIB = 1 << 20
AT_MOST_S = 60.0
LIMITS = Limits(
    fuel=200_000,
    wall_s=5.0,
    rss_bytes=96 * MIB,
    memory_bytes=2 * MIB,
    table_elements=100_000,
    compile_wall_s=20.0,
    compile_rss_bytes=512 * MIB,
    module_bytes=MIB,
)
CALLS_A_MODULE = 4
CORPUS = corpus()
NAMES = sorted(CORPUS)
#: A module may do all of this. That a compiler or worker dies of it, or breaks the protocol, it may not.
EXPECTED = {
    "compile": {(e.CompileError, cause) for cause in (Cause.COMPILE, Cause.WALL, Cause.RSS)},
    "instantiate": {
        *((e.InstantiationError, cause) for cause in (Cause.LINK, Cause.GUEST_TRAP, Cause.HOST_FUNCTION, Cause.MEMORY)),
        (e.FuelExhausted, Cause.FUEL),
        (e.WallClockExceeded, Cause.WALL),
        (e.RssExceeded, Cause.RSS),
    },
    "call": {
        (e.Trap, Cause.GUEST_TRAP),
        (e.MemoryAccessError, Cause.MEMORY),
        (e.CallError, Cause.USAGE),
        (e.CallError, Cause.HOST_FUNCTION),
        (e.FuelExhausted, Cause.FUEL),
        (e.WallClockExceeded, Cause.WALL),
        (e.RssExceeded, Cause.RSS),
    },
}


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(limits=LIMITS, spares=0, cache_bytes=0) as made:
        made.instantiate(made.compile("(module)")).close()
        yield made


def imports_for(module: Any) -> WasmImports:
    """Something for every function that it imports and that can be offered; what it returns are zeros."""
    functions = {}
    for item in module.imports():
        if isinstance(item.type, FuncType) and item.type.unsupported is None:
            zeros = (0,) * len(item.type.results)
            answer: Any = zeros[0] if len(zeros) == 1 else zeros or None
            functions[item.module, item.name] = HostFunction(
                lambda _caller, *_args, answer=answer: answer, item.type.params, item.type.results
            )
    return WasmImports(functions=functions)


def attempt(what: str, outcomes: Any, action: Any) -> Any:
    """What `action` gives; None when it raises what such a module may."""
    started = time.monotonic()
    result, error = None, None
    try:
        result = action()
    except WasmError as exc:
        error = check_error(exc)
    assert time.monotonic() - started < AT_MOST_S, "it hung"
    if error is not None:
        assert (type(error), error.cause) in EXPECTED[what], f"{what}: {error!r}, stderr {error.stderr_tail!r}"
    outcomes[what, "done" if error is None else error.cause] += 1
    return result


def run(supervisor: Supervisor, binary: bytes, outcomes: Any) -> None:
    """One module, as far as it gets."""
    module = attempt("compile", outcomes, lambda: supervisor.compile(binary))
    if module is None:
        return
    instance = attempt("instantiate", outcomes, lambda: supervisor.instantiate(module, imports_for(module)))
    if instance is None:
        return
    with instance:
        functions = [item for item in module.export_types() if isinstance(item.type, FuncType)]
        for item in functions[:CALLS_A_MODULE]:
            zeros = [0] * len(item.type.params)
            attempt("call", outcomes, lambda item=item, zeros=zeros: instance.call(item.name, zeros))
            if not instance.alive:
                return


def fork_server_bytes() -> int:
    """Resident bytes of our children: fork servers."""
    return sum(child.memory_info().rss for child in psutil.Process().children())


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_modules(supervisor: Supervisor, part: int) -> None:
    """Each is compiled or refused, runs or fails as modules may; nobody dies of one, and nothing is left."""
    outcomes: collections.Counter[Any] = collections.Counter()
    before, server_before = None, 0
    for count, seed in enumerate(seeds(part, PARTS, ROUNDS)):
        dice = Dice(seed)
        # The real program takes longer than all others together.
        name = "vt100" if "vt100" in CORPUS and dice.one_in(40) else dice.choice(NAMES) if dice.one_in(2) else "rich"
        binary = mutate(dice, CORPUS[name], CORPUS[dice.choice(NAMES)])
        with naming(seed, lambda name=name, binary=binary: f"{name}, damaged: {binary[:4000].hex()}"):
            run(supervisor, binary, outcomes)
        if count == 60:
            before, server_before = Growth(), fork_server_bytes()
    if before is not None:
        before.check(8 * MIB)
        assert fork_server_bytes() - server_before < 4 * MIB
        assert min(outcomes[what, "done"] for what in EXPECTED) > ROUNDS // PARTS // 50, outcomes
        assert outcomes["compile", Cause.COMPILE] > ROUNDS // PARTS // 10, outcomes
