"""The warm call beside what else one could do: other libraries' pools and plugins, each through its own public API.

Each does the same: call a guest's `add` with two plain ints and give the sum back. The pools call wasmtime-py in a
process of their own: another process, but nothing that limits or locks down what runs there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec

from pdsandbox import Supervisor

from . import extisms
from .guests import ADD, plain_add
from .measure import Contender, Group, Row, Series, block
from .pools import Futures, Loky, NaivePipe, Pebble, PlainPool

# A report that leaves a rival out is no report: better an error now than after minutes.
for _name in ("extism", "loky", "pebble"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"No module named {_name!r}", name=_name)

# A block takes 0.5 ms for the fastest; for the pools, at up to 0.4 ms a call, 8 ms.
_CALLS = 50
_POOL_CALLS = 20
# What ran before left caller and worker where it liked: the scheduler takes some calls to put them on a core each.
_LEAD_IN = 50
_POOL_LEAD_IN = 2
# Ten times as long as a pool's call takes.
_REST_S = 0.003

_OURS = "peers.isolated"
SERIES = (
    Series(_OURS, 'Supervisor: add = instance.func("add"); add(1, 2)', short="pdsandbox, isolated"),
    Series(
        "peers.wasmtime",
        "wasmtime-py in-process: add(store, 1, 2), fuel metered, set once",
        short="wasmtime-py in-process",
    ),
    Series(
        "peers.extism",
        'Extism in-process: plugin.call("add", 8 bytes) -> 4 bytes, packed and unpacked; no limits',
        short="Extism in-process",
    ),
    Series(
        "peers.extism_limited",
        "the same with timeout_ms and memory.max_pages in its manifest; no fuel",
        short="Extism in-process, limits",
    ),
    Series(
        "peers.pipe",
        "a process that calls wasmtime-py behind a multiprocessing.Pipe: send((1, 2)); recv()",
        short="multiprocessing.Pipe worker",
    ),
    Series(
        "peers.pool",
        "multiprocessing.Pool(1) whose process calls wasmtime-py: apply(add, (1, 2))",
        short="multiprocessing.Pool",
    ),
    Series(
        "peers.pebble",
        "pebble.ProcessPool(1) whose process calls wasmtime-py: schedule(add, (1, 2), timeout=5).result()",
        short="pebble",
    ),
    Series(
        "peers.futures",
        "ProcessPoolExecutor(1) whose process calls wasmtime-py: submit(add, 1, 2).result()",
        short="ProcessPoolExecutor",
    ),
    Series(
        "peers.loky",
        "loky.ProcessPoolExecutor(1) whose process calls wasmtime-py: submit(add, 1, 2).result()",
        short="loky",
    ),
)
ROWS = tuple(
    Row(f"peer.{series.key.removeprefix('peers.')}", "isolated func", _OURS, series.key) for series in SERIES[1:]
)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        # How its process was started makes no difference to a warm call; spawned ones inherit nothing of ours.
        pools = {
            "peers.pipe": stack.enter_context(NaivePipe("spawn")),
            "peers.pool": stack.enter_context(PlainPool("spawn")),
            "peers.pebble": stack.enter_context(Pebble("spawn")),
            "peers.futures": stack.enter_context(Futures("spawn")),
            "peers.loky": stack.enter_context(Loky()),
        }
        free = stack.enter_context(extisms.plugin(limited=False))
        limited = stack.enter_context(extisms.plugin(limited=True))
        host = stack.enter_context(Supervisor())
        isolated = stack.enter_context(host.instantiate(host.compile(ADD))).func("add")
        plain = plain_add()
        store, plain_call = plain.store, plain.add

        quick: Mapping[str, Callable[[int, int], object]] = {
            "peers.wasmtime": lambda a, b: plain_call(store, a, b),
            _OURS: isolated,
            "peers.extism": lambda a, b: extisms.add(free, a, b),
            "peers.extism_limited": lambda a, b: extisms.add(limited, a, b),
        }
        for key, add in {**quick, **{key: pool.call for key, pool in pools.items()}}.items():
            if add(1, 2) != 3 or add(-5, 2) != -3:
                raise RuntimeError(f"{key} does not add")
        yield (
            *(_repeated(key, add, _CALLS, _LEAD_IN) for key, add in quick.items()),
            *(_repeated(key, pool.call, _POOL_CALLS, _POOL_LEAD_IN) for key, pool in pools.items()),
            _rest,
        )


def _repeated(key: str, add: Callable[[int, int], object], calls: int, lead_in: int) -> Contender:
    return block(key, lambda: add(1, 2), calls=calls, lead_in=lead_in)


def _rest() -> Mapping[str, float]:
    """What a pool's threads still do after its last answer is over before the next round."""
    time.sleep(_REST_S)
    return {}


GROUP = Group(
    "peers",
    "one warm call: pdsandbox and others",
    SERIES,
    ROWS,
    _open,
    rounds=300,
    quick_rounds=40,
    caption="The same add(1, 2), through each library's own public API. The pools call wasmtime-py in another "
    "process, which nothing limits or locks down.",
    hero=tuple(series.key for series in SERIES),
)
