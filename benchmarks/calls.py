"""The warm call: one small function, called again and again, isolated and in-process, and the bare pipe between.

All contenders take turns in one group, so any two may be compared. The isolated instance has every limit at its
default: fuel for each call, 5 s of wall clock, RSS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pdsandbox import I32, Supervisor, WasmtimeHost

from .guests import ADD, plain_add
from .measure import Bar, Contender, Group, Row, Series, block
from .pipes import Echo

# 100 calls take from 0.5 ms to 8 ms: long against the clock's grain, short against a scheduler's time slice.
_CALLS = 100
# Adaptive waiting spins once calls have followed each other closely for a call or two.
_LEAD_IN = 20
_BATCH = 1000

SERIES = (
    Series("isolated.call", 'Supervisor: instance.call("add", [I32(1), I32(2)])'),
    Series("isolated.call_off", 'the same, Supervisor(hardening="off")', short="hardening off", side="ours"),
    Series("isolated.call_ints", 'Supervisor: instance.call("add", [1, 2])'),
    Series("isolated.func", 'Supervisor: add = instance.func("add"); add(1, 2)'),
    Series("isolated.call_many", f'Supervisor: instance.call_many("add", {_BATCH:,} rows of ints), per row'),
    Series("local.call", 'WasmtimeHost: instance.call("add", [I32(1), I32(2)])'),
    Series("local.call_ints", 'WasmtimeHost: instance.call("add", [1, 2])'),
    Series("local.func", 'WasmtimeHost: add = instance.func("add"); add(1, 2)'),
    Series(
        "wasmtime.call",
        "wasmtime-py in-process: add(store, 1, 2), fuel metered, set once",
        short="wasmtime-py in-process",
    ),
    Series("pipe.spin", "bare pipe round trip, both ends spinning", short="bare pipe, spinning"),
    Series("pipe.block", "bare pipe round trip, both ends blocking", short="bare pipe, blocking"),
)

_WARM = Bar(0.30, "issue 4")
_PIPE = Bar(2.2, "issue 4")

ROWS = (
    Row("call.wasmtime", "isolated call", "isolated.call", "wasmtime.call", bar=_WARM),
    Row("call_ints.wasmtime", "isolated call, plain ints", "isolated.call_ints", "wasmtime.call", bar=_WARM),
    Row("func.wasmtime", "isolated func", "isolated.func", "wasmtime.call", bar=_WARM),
    Row("call.pipe_spin", "isolated call", "isolated.call", "pipe.spin", bar=_PIPE),
    Row("func.pipe_spin", "isolated func", "isolated.func", "pipe.spin"),
    Row("call.pipe_block", "isolated call", "isolated.call", "pipe.block"),
    Row("func.pipe_block", "isolated func", "isolated.func", "pipe.block"),
    Row(
        "call_many.wasmtime",
        "isolated call_many, per row",
        "isolated.call_many",
        "wasmtime.call",
        bar=Bar(0.09, "issue 4"),
    ),
    Row("call.hardening", "isolated call", "isolated.call", "isolated.call_off", bar=Bar(1.05, "issue 3")),
    Row(
        "local_call_ints.wasmtime",
        "WasmtimeHost call, plain ints",
        "local.call_ints",
        "wasmtime.call",
        bar=Bar(0.12, "issue 4"),
    ),
    Row("local_call.wasmtime", "WasmtimeHost call", "local.call", "wasmtime.call"),
    Row("local_func.wasmtime", "WasmtimeHost func", "local.func", "wasmtime.call"),
)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor())
        local_host = stack.enter_context(WasmtimeHost())
        isolated = stack.enter_context(supervisor.instantiate(supervisor.compile(ADD)))
        open_host = stack.enter_context(Supervisor(hardening="off"))
        unhardened = stack.enter_context(open_host.instantiate(open_host.compile(ADD)))
        local = stack.enter_context(local_host.instantiate(local_host.compile(ADD)))
        spinning = stack.enter_context(Echo("spin"))
        blocking = stack.enter_context(Echo("block"))
        plain = plain_add()
        store, plain_call = plain.store, plain.add
        isolated_func, local_func = isolated.func("add"), local.func("add")
        rows = [(n, 1) for n in range(_BATCH)]

        # What answers wrongly is not worth timing.
        expected = [I32(3)]
        for instance in (isolated, unhardened, local):
            assert instance.call("add", [I32(1), I32(2)]) == instance.call("add", [1, 2]) == expected
        assert isolated_func(1, 2) == local_func(1, 2) == plain_call(store, 1, 2) == 3
        assert isolated.call_many("add", rows) == [[I32(n + 1)] for n in range(_BATCH)]

        many = block("", lambda: isolated.call_many("add", rows), calls=1, lead_in=1)
        yield (
            block("wasmtime.call", lambda: plain_call(store, 1, 2), calls=_CALLS, lead_in=_LEAD_IN),
            block("isolated.call", lambda: isolated.call("add", [I32(1), I32(2)]), calls=_CALLS, lead_in=_LEAD_IN),
            block(
                "isolated.call_off", lambda: unhardened.call("add", [I32(1), I32(2)]), calls=_CALLS, lead_in=_LEAD_IN
            ),
            spinning.block("pipe.spin", calls=_CALLS, lead_in=_LEAD_IN),
            block("isolated.func", lambda: isolated_func(1, 2), calls=_CALLS, lead_in=_LEAD_IN),
            blocking.block("pipe.block", calls=_CALLS, lead_in=_LEAD_IN),
            block("isolated.call_ints", lambda: isolated.call("add", [1, 2]), calls=_CALLS, lead_in=_LEAD_IN),
            lambda: {"isolated.call_many": many()[""] / _BATCH},
            block("local.call", lambda: local.call("add", [I32(1), I32(2)]), calls=_CALLS, lead_in=_LEAD_IN),
            block("local.call_ints", lambda: local.call("add", [1, 2]), calls=_CALLS, lead_in=_LEAD_IN),
            block("local.func", lambda: local_func(1, 2), calls=_CALLS, lead_in=_LEAD_IN),
        )


GROUP = Group(
    "calls",
    "warm calls",
    SERIES,
    ROWS,
    _open,
    rounds=300,
    quick_rounds=60,
    warmup=5,
    caption="One small function, called again and again, every limit at its default. The bare pipe is the floor "
    "under any isolation by processes.",
)
