import sys
import threading

import pytest

from pdsandbox import locate
from pdsandbox.errors import CallError, Cause, CompileError, FuelExhausted, InstantiationError, Trap, WorkerCrashed
from pdsandbox.imports import HostFunction, WasmImports
from pdsandbox.limits import EngineConfig, Limits
from pdsandbox.runtime.host import WasmtimeHost
from pdsandbox.values import I32

TEXT = """(module (import "a" "b" (func $b)) (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "div") (param i32) (result i32) (i32.div_s (i32.const 100) (local.get 0)))
  (func (export "out") call $b) (func (export "spin") (loop (br 0))))"""


def instance(host, fn=lambda _caller: None):
    return host.instantiate(host.compile(TEXT), WasmImports(functions={("a", "b"): HostFunction(fn)}))


@pytest.mark.parametrize(
    "limits", [{"wall_s": 1.0}, {"rss_bytes": 64 << 20}, {"compile_wall_s": 1}, {"compile_rss_bytes": 64 << 20}]
)
def test_limits_that_need_a_process_are_refused(limits):
    """An explicit one is a ValueError naming it; switched off, or at its default, it is fine."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        WasmtimeHost(Limits(**limits))
    WasmtimeHost(Limits(**dict.fromkeys(limits))).close()


def test_fuel_budgets():
    """Default per call, a shared budget drawn down, one call's own: as documented."""
    with WasmtimeHost(Limits(fuel=10_000)) as host:
        guest = instance(host)
        start = guest.fuel_consumed()
        guest.call("add", [1, 2])
        one = guest.fuel_consumed() - start
        guest.set_fuel(2 * one)
        guest.call("add", [1, 2])
        guest.call("add", [1, 2], fuel=100)
        guest.call("add", [1, 2])
        with pytest.raises(FuelExhausted):
            guest.call("add", [1, 2])
        with pytest.raises(FuelExhausted):
            guest.call("spin", fuel=50)
        guest.set_fuel(100)
        assert guest.call("add", [1, 2]) == [I32(3)]
        for bad in (-1, 2**63, 1.5, "x", True):
            with pytest.raises(CallError):
                guest.call("add", [1, 2], fuel=bad)
            with pytest.raises(CallError):
                guest.set_fuel(bad)


def test_without_metering():
    """set_fuel does nothing, fuel_consumed is None, a call's own budget cannot be kept."""
    with WasmtimeHost(engine=EngineConfig(fuel=False)) as host:
        guest = instance(host)
        guest.set_fuel(1)
        assert guest.call("add", [1, 2]) == [I32(3)]
        assert guest.fuel_consumed() is None
        with pytest.raises(CallError):
            guest.call("add", [1, 2], fuel=5)


def test_a_batch_and_its_failures():
    """Results of the rows before the failing one come with the error; a bad row stops the batch before it runs."""
    with WasmtimeHost() as host:
        guest = instance(host)
        assert guest.call_many("add", [(1, 2), (I32(3), 4)]) == [[I32(3)], [I32(7)]]
        with pytest.raises(Trap) as caught:
            guest.call_many("div", [(1,), (2,), (0,), (4,)])
        assert (caught.value.row, caught.value.results) == (2, [[I32(100)], [I32(50)]])
        with pytest.raises(CallError) as caught:
            guest.call_many("add", [(1, 2), (1,)])
        assert (caught.value.row, caught.value.results) == (1, [])
        with pytest.raises(FuelExhausted) as caught:
            guest.call_many("add", [(1, 2)] * 1000, fuel=400)
        assert 0 < caught.value.row == len(caught.value.results) < 400


def test_reentry_is_refused():
    """From its own host function an instance refuses everything, at once, and lives on."""
    seen = []

    def fn(_caller):
        for use in (lambda: guest.call("add", [1, 2]), lambda: guest.memory_read(0, 1), lambda: guest.set_fuel(1)):
            with pytest.raises(CallError) as caught:
                use()
            seen.append(caught.value.cause)

    with WasmtimeHost() as host:
        guest = instance(host, fn)
        guest.call("out")
        assert seen == [Cause.USAGE] * 3
        assert guest.func("add")(1, 2) == 3


@pytest.mark.parametrize(
    ("end", "kind", "cause"), [("close", CallError, Cause.CLOSED), ("kill", WorkerCrashed, Cause.CANCELLED)]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_ended_during_a_call(end, kind, cause, elsewhere):
    """close and kill, from the host function or from another thread, take effect when the call returns."""

    def fn(_caller):
        if elsewhere:
            thread = threading.Thread(target=getattr(guest, end))
            thread.start()
            thread.join()
        else:
            getattr(guest, end)()

    with WasmtimeHost() as host:
        guest = instance(host, fn)
        for _ in range(2):
            with pytest.raises(kind) as caught:
                guest.call("out")
            assert caught.value.cause is cause
        assert not guest.alive
        guest.close()
        with pytest.raises(kind):
            guest.memory_read(0, 1)


def test_near_the_recursion_limit():
    """A callback that could not be entered any more would crash the process: the call is refused before."""
    with WasmtimeHost() as host:
        guest = instance(host)

        def deep(n):
            try:
                guest.call("out")
            except RecursionError:
                return n
            return deep(n + 1)

        assert deep(0) > 100
        assert guest.call("add", [1, 2]) == [I32(3)]


def test_of_another_host_and_closed():
    """A stranger's module is refused, and so is all work after close, which may be repeated."""
    with WasmtimeHost() as host, WasmtimeHost() as other:
        module = host.compile(TEXT)
        with pytest.raises(InstantiationError, match="another host"):
            other.instantiate(module)
        with pytest.raises(InstantiationError, match="must be a Wasi, not object"):
            host.instantiate(module, wasi=object())
        guest = instance(host)
        with pytest.raises(CallError, match="wall_s"):
            guest.call("add", [1, 2], wall_s=1.0)
    host.close()
    for use in (lambda: guest.call("add", [1, 2]), lambda: host.compile(TEXT), lambda: host.instantiate(module)):
        with pytest.raises((CallError, CompileError, InstantiationError)) as caught:
            use()
        assert caught.value.cause is Cause.CLOSED


@pytest.mark.hammer
def test_threads_take_turns():
    """Eight threads on one instance and on their own: every answer right."""
    with WasmtimeHost() as host:
        module = host.compile(TEXT)
        shared = instance(host)
        wrong = []

        def work(k):
            own = host.instantiate(module, WasmImports(functions={("a", "b"): HostFunction(lambda _c: None)}))
            for i in range(300):
                answers = [guest.call("add", [k, i]) for guest in (shared, own)]
                if answers != [[I32(k + i)]] * 2:
                    wrong.append(answers)
            own.close()

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_the_library_is_found_without_importing_wasmtime(monkeypatch):
    """Its path and version come from metadata; what is missing or untested is an ImportError with the way out."""
    monkeypatch.delitem(sys.modules, "wasmtime", raising=False)
    path, version = locate.wasmtime_library()
    assert path.endswith((".so", ".dylib"))
    assert version in locate.TESTED_VERSIONS
    assert "wasmtime" not in sys.modules
    monkeypatch.setattr(locate, "_version", lambda _spec: "1.2.3")
    with pytest.raises(ImportError, match=r"found wasmtime 1.2.3.*tested with 50.0.1.*pip install wasmtime==50.0.1"):
        locate.wasmtime_library()
    monkeypatch.undo()
    monkeypatch.setattr(locate, "_machine", lambda: "mips")
    with pytest.raises(ImportError, match=r"no library for .* on mips"):
        locate.wasmtime_library()
    monkeypatch.setattr(locate.PathFinder, "find_spec", lambda _name: None)
    monkeypatch.setattr(locate, "_found_otherwise", lambda: None)
    with pytest.raises(ImportError, match="not installed"):
        locate.wasmtime_library()
