"""The guest calls out: what one call of a host function costs, in the worker, in the supervisor, and in wasmtime-py.

A guest's loop calls the host function some hundred times within one call of an export. From that time goes what the
same loop takes with a function of the guest's own in its place, so neither loop nor export call is left in the figure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import wasmtime

from pdsandbox import Caller, HostFunction, Supervisor, WasmImports, WasmtimeHost, in_worker

from .guests import binary, plain_store
from .measure import Bar, Contender, Group, Row, Series
from .pipes import Echo

# A block lasts from 0.5 to 10 ms; each number of calls is below every default limit on host calls.
_NEAR, _FAR, _LOGS = 1000, 200, 1000
_LEAD_IN = 20
_MESSAGE = b"a line of a log of 32 characters"

_GUEST = f"""(module
  (import "host" "add" (func $host (param i32 i32) (result i32)))
  (import "pd" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "{_MESSAGE.decode()}")
  (func $own (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "count_host") (param $n i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (call $host (local.get $sum) (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
  (func (export "count_own") (param $n i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (call $own (local.get $sum) (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
  (func (export "log") (param $n i32) (result i32) (local $done i32)
    (loop $again
      (call $log (i32.const 2) (i32.const 0) (i32.const {len(_MESSAGE)}))
      (local.set $done (i32.add (local.get $done) (i32.const 1)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $done)))"""

SERIES = (
    Series("hosting.worker", "Supervisor: a guest calls HostFunction(in_worker(add)), per call"),
    Series("hosting.supervisor", "Supervisor: a guest calls HostFunction(add), which runs in the supervisor, per call"),
    Series("hosting.log", f"Supervisor: a guest calls pd_log with {len(_MESSAGE)} bytes, per call"),
    Series("hosting.local", "WasmtimeHost: a guest calls HostFunction(add), per call"),
    Series(
        "hosting.wasmtime",
        "wasmtime-py in-process: a guest calls what define_func was given, without access to its caller, per call",
        short="wasmtime-py define_func",
    ),
    Series(
        "hosting.wasmtime_log",
        f"wasmtime-py in-process: a guest calls a function that reads {len(_MESSAGE)} bytes of its memory, per call",
        short="wasmtime-py define_func, memory read",
    ),
    Series("hosting.pipe_spin", "bare pipe round trip, both ends spinning", short="bare pipe, spinning"),
    Series("hosting.pipe_block", "bare pipe round trip, both ends blocking", short="bare pipe, blocking"),
)
ROWS = (
    Row(
        "host_worker.wasmtime",
        "host function in the worker",
        "hosting.worker",
        "hosting.wasmtime",
        bar=Bar(0.12, "issue 4"),
    ),
    Row(
        "host_supervisor.pipe_spin",
        "host function in the supervisor",
        "hosting.supervisor",
        "hosting.pipe_spin",
        bar=Bar(2.2, "issue 4"),
    ),
    Row("host_supervisor.pipe_block", "host function in the supervisor", "hosting.supervisor", "hosting.pipe_block"),
    Row("host_supervisor.wasmtime", "host function in the supervisor", "hosting.supervisor", "hosting.wasmtime"),
    Row("host_log.pipe_spin", "pd_log in the supervisor", "hosting.log", "hosting.pipe_spin"),
    Row("host_log.wasmtime", "pd_log in the supervisor", "hosting.log", "hosting.wasmtime_log"),
    Row("host_local.wasmtime", "host function, WasmtimeHost", "hosting.local", "hosting.wasmtime"),
)


def _add(_caller: Caller, a: int, b: int) -> int:
    return a + b


class _Log:
    """Counts what it was told."""

    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, _level: int, message: bytes) -> None:
        if message != _MESSAGE:
            raise ValueError(message)
        self.lines += 1


def _offered(fn: Callable[..., Any], log: _Log) -> WasmImports:
    function = HostFunction(fn, ("i32", "i32"), ("i32",))
    return WasmImports(pd_log=log, functions={("host", "add"): function})


def _plain(log: _Log) -> Mapping[str, Callable[[int], int]]:
    """The guest's exports in wasmtime-py, its host functions defined as its documentation shows."""
    store = plain_store()
    i32 = wasmtime.ValType.i32()
    linker = wasmtime.Linker(store.engine)
    linker.define_func("host", "add", wasmtime.FuncType([i32, i32], [i32]), lambda a, b: a + b)

    def read(caller: wasmtime.Caller, level: int, start: int, length: int) -> None:
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        log(level, bytes(memory.read(caller, start, start + length)))

    linker.define_func("pd", "pd_log", wasmtime.FuncType([i32] * 3, []), read, access_caller=True)
    exports = linker.instantiate(store, wasmtime.Module(store.engine, binary(_GUEST))).exports(store)

    def bound(name: str) -> Callable[[int], int]:
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        return lambda times: function(store, times)

    return {name: bound(name) for name in ("count_host", "count_own", "log")}


def _per_call(key: str, hosted: Callable[[int], int], own: Callable[[int], int], times: int) -> Contender:
    """`hosted` makes `times` host calls, `own` as many of the guest's own; both give their number back."""

    def sample() -> Mapping[str, float]:
        hosted(_LEAD_IN)
        started = time.perf_counter()
        answers = hosted(times), (between := time.perf_counter()), own(times)
        ended = time.perf_counter()
        if (answers[0], answers[2]) != (times, times):
            raise RuntimeError(f"{key}: {times} calls counted up to {answers[0]} and {answers[2]}")
        return {key: ((between - started) - (ended - between)) / times}

    return sample


def _logging(key: str, write: Callable[[int], int], own: Callable[[int], int], log: _Log) -> Contender:
    sample = _per_call(key, write, own, _LOGS)

    def checked() -> Mapping[str, float]:
        before = log.lines
        taken = sample()
        if log.lines - before != _LEAD_IN + _LOGS:
            raise RuntimeError(f"{key}: {log.lines - before} lines of {_LEAD_IN + _LOGS} came")
        return taken

    return checked


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor())
        local_host = stack.enter_context(WasmtimeHost())
        isolated_log, plain_log = _Log(), _Log()
        module = supervisor.compile(_GUEST)
        near = stack.enter_context(supervisor.instantiate(module, _offered(in_worker(_add), isolated_log)))
        far = stack.enter_context(supervisor.instantiate(module, _offered(_add, isolated_log)))
        local = stack.enter_context(local_host.instantiate(local_host.compile(_GUEST), _offered(_add, _Log())))
        plain = _plain(plain_log)
        spinning = stack.enter_context(Echo("spin"))
        blocking = stack.enter_context(Echo("block"))
        yield (
            _per_call("hosting.wasmtime", plain["count_host"], plain["count_own"], _NEAR),
            _per_call("hosting.worker", near.func("count_host"), near.func("count_own"), _NEAR),
            spinning.block("hosting.pipe_spin", calls=_FAR, lead_in=_LEAD_IN),
            _per_call("hosting.supervisor", far.func("count_host"), far.func("count_own"), _FAR),
            blocking.block("hosting.pipe_block", calls=_FAR // 2, lead_in=_LEAD_IN),
            _logging("hosting.log", far.func("log"), far.func("count_own"), isolated_log),
            _logging("hosting.wasmtime_log", plain["log"], plain["count_own"], plain_log),
            _per_call("hosting.local", local.func("count_host"), local.func("count_own"), _NEAR),
        )


GROUP = Group(
    "hosting",
    "host functions",
    SERIES,
    ROWS,
    _open,
    rounds=200,
    quick_rounds=30,
    caption="A guest calls back into Python: in its worker, or in your own process.",
)
