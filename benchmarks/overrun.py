"""How far beyond its RSS limit does a guest get? One that touches memory as fast as it can, page after page.

The figure is what the supervisor saw when it decided (`RssExceeded.observed`), less the limit. It has looked some time
before that and found the limit kept, so the baseline is how much the same guest touches within one millisecond.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import wasmtime

from pdsandbox import Limits, RssExceeded, Supervisor

from . import inprocess
from .guests import binary
from .measure import Contender, Group, Row, Series

_MIB = 1 << 20
_LIMIT = 64 * _MIB
# Far beyond the limit, so that the guest cannot finish before it is stopped.
_WANTED = 1024 * _MIB
_PLAIN = 64 * _MIB

_GREEDY = """(module
  (memory (export "memory") 0)
  (func (export "touch") (param $bytes i32) (result i32) (local $at i32)
    (if (i32.eq (memory.grow (i32.shr_u (local.get $bytes) (i32.const 16))) (i32.const -1))
      (then (return (i32.const -1))))
    (loop $next
      (i32.store8 (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $bytes))))
    (local.get $at)))"""

SERIES = (
    Series(
        "rss.over", f"rss_bytes={_LIMIT // _MIB} MiB, memory touched at full speed: observed beyond the limit", "bytes"
    ),
    Series(
        "rss.rate",
        "wasmtime-py in-process: what the same guest touches in 1 ms",
        "bytes",
        short="touched in 1 ms, in-process",
    ),
)
ROWS = (
    Row("rss.p50", "RSS limit overshot, median", "rss.over", "rss.rate"),
    Row("rss.p99", "RSS limit overshot, p99", "rss.over", "rss.rate", statistic="p99"),
    Row("rss.max", "RSS limit overshot, maximum", "rss.over", "rss.rate", statistic="max"),
)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    limits = Limits(rss_bytes=_LIMIT, memory_bytes=_WANTED, fuel=inprocess.FUEL_FOREVER)
    engine = inprocess.engine()
    plain_module = wasmtime.Module(engine, binary(_GREEDY))
    with Supervisor(limits=limits, spares=0) as host:
        module = host.compile(_GREEDY)

        def over() -> Mapping[str, float]:
            with host.instantiate(module) as instance:
                try:
                    answer = instance.func("touch")(_WANTED)
                except RssExceeded as exc:
                    observed = exc.observed
                else:
                    raise RuntimeError(f"a guest that wanted {_WANTED} bytes of {_LIMIT} returned {answer}")
            if observed is None:
                raise RuntimeError("RssExceeded without what was observed")
            return {"rss.over": observed - _LIMIT}

        def rate() -> Mapping[str, float]:
            store = inprocess.store(engine)
            touch = wasmtime.Instance(store, plain_module, []).exports(store)["touch"]
            assert isinstance(touch, wasmtime.Func)
            started = time.perf_counter()
            answer = touch(store, _PLAIN)
            taken = time.perf_counter() - started
            if answer != _PLAIN:
                raise RuntimeError(f"touch({_PLAIN}) gave {answer}")
            return {"rss.rate": _PLAIN / taken / 1000}

        yield (rate, over)


GROUP = Group(
    "rss",
    "RSS overshoot",
    SERIES,
    ROWS,
    _open,
    rounds=150,
    quick_rounds=30,
    warmup=1,
    chart="distribution",
    caption="How far beyond its RSS limit a guest gets that touches memory as fast as it can, and what it "
    "touches in a millisecond.",
)
