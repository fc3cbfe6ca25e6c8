"""What a supervisor is made with: clear refusals at once, nothing started before use, the options at work."""

from __future__ import annotations

import sys

import pytest
from leaks import descendants, fds
from supervising import GUEST, expect, imports

from pdsandbox import (
    I32,
    CallError,
    Cause,
    CompileError,
    EngineConfig,
    InstantiationError,
    Limits,
    Supervisor,
    WasmError,
    WasmtimeHost,
)

COUNTS = {"spares": (0, 64), "max_workers": (1, 100_000), "max_compilers": (1, 1024), "cache_bytes": (0, 1 << 44)}
NO_COUNTS = [-1, 1.0, 1.5, "1", True, float("nan"), 1 << 70, 1 << 20_000, b"1", [1]]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_within_their_bounds(name):
    """Both ends are taken; one beyond either is a ValueError that names option, bounds and what was given."""
    low, high = COUNTS[name]
    for value in (low, high):
        Supervisor(**{name: value})
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=name) as caught:
            Supervisor(**{name: value})
        for part in (f"{low:,}", f"{high:,}", str(value)):
            assert part in str(caught.value)


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: repr(value) if value != 1 << 20_000 else "huge")
@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_count(name, value):
    """ValueError or TypeError, naming the option."""
    with pytest.raises((ValueError, TypeError), match=name):
        Supervisor(**{name: value})


@pytest.mark.parametrize("name", ["spares", "cache_bytes"])
def test_none_is_no_count(name):
    """Where None means nothing, it is refused by name."""
    with pytest.raises((ValueError, TypeError), match=name):
        Supervisor(**{name: None})


@pytest.mark.parametrize("hardening", ["", "Default", "none", 1, True, Limits(), b"off"], ids=repr)
def test_a_hardening_that_there_is_not(hardening):
    """ValueError or TypeError that shows what is possible."""
    with pytest.raises((ValueError, TypeError), match='"default", "strict", "off" or a Hardening'):
        Supervisor(hardening=hardening)


@pytest.mark.parametrize("isolation", ["none", "", None, 1, "INSTANCE"], ids=repr)
def test_an_isolation_that_there_is_not(isolation):
    """ValueError that shows what was given and what is known."""
    with pytest.raises(ValueError, match="isolation") as caught:
        Supervisor(isolation=isolation)
    assert "instance" in str(caught.value)
    assert repr(isolation) in str(caught.value)


@pytest.mark.parametrize("host", [Supervisor, WasmtimeHost], ids=lambda host: host.__name__)
@pytest.mark.parametrize(
    ("name", "value"),
    [("limits", {"fuel": 1}), ("limits", 5), ("engine", True), ("engine", "fuel"), ("limits", Limits)],
)
def test_limits_and_engine_of_the_wrong_type(host, name, value):
    """TypeError that names the option, the class it takes and the class it got."""
    with pytest.raises(TypeError, match=f"{name} takes .* not {type(value).__name__}"):
        host(**{name: value})


@pytest.mark.parametrize("value", [1, b"\0", ["python"], object()], ids=lambda value: type(value).__name__)
def test_a_python_that_is_no_path(value):
    """TypeError or ValueError at construction, naming the option where it is ours to say."""
    if isinstance(value, bytes):
        with pytest.raises((TypeError, ValueError)):
            Supervisor(python=value)
    else:
        with pytest.raises(TypeError):
            Supervisor(python=value)


@pytest.mark.parametrize("python", ["/no/such/python", "/", "/dev/null"])
def test_a_python_that_cannot_be_started(python):
    """Nothing happens before the first use; then the error of its class, cause HOST."""
    with Supervisor(python=python) as host:
        error = expect(CompileError, Cause.HOST, lambda: host.compile("(module)"))
        assert "could not be started" in str(error)
        expect(CompileError, Cause.HOST, lambda: host.compile("(module)"))


def test_a_python_that_is_none():
    """Any other program dies or says nothing sensible: cause HOST, and no hang."""
    with Supervisor(python="/bin/false") as host:
        expect(CompileError, Cause.HOST, lambda: host.compile("(module)"))


def test_the_python_to_use():
    """A path, as str or PathLike, to any Python with the same version works."""
    from pathlib import Path

    for python in (sys.executable, Path(sys.executable)):
        with Supervisor(python=python, spares=0) as host:
            assert host.compile("(module)").exports() == []


def test_a_relative_python_and_one_on_path(tmp_path, monkeypatch):
    """Both mean what they mean where and when the supervisor is made."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "our-python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    hosts = [Supervisor(python=python, spares=0) for python in ("bin/our-python", "our-python")]
    monkeypatch.undo()
    for host in hosts:
        with host:
            assert host.compile("(module)").exports() == []


def test_no_positional_and_no_unknown_options():
    """TypeError."""
    with pytest.raises(TypeError):
        Supervisor(Limits())
    with pytest.raises(TypeError, match="spare"):
        Supervisor(spare=1)


def test_nothing_is_started_before_the_first_use():
    """Making and closing supervisors costs no process and no descriptor."""
    before = descendants(), fds()
    made = [Supervisor(spares=8) for _ in range(20)]
    assert (descendants(), fds()) == before
    for host in made:
        host.close()
        host.close()
    assert (descendants(), fds()) == before


def test_a_module_of_another_host(host, make_supervisor):
    """InstantiationError, USAGE: of another supervisor, of the in-process host, or no module at all."""
    with WasmtimeHost() as local:
        for module in (make_supervisor().compile("(module)"), local.compile("(module)"), None, b"\0asm", "(module)"):
            expect(InstantiationError, Cause.USAGE, lambda module=module: host.instantiate(module))


def test_imports_of_the_wrong_type(host):
    """InstantiationError, USAGE, that names both types."""
    error = expect(InstantiationError, Cause.USAGE, lambda: host.instantiate(host.compile("(module)"), {}))
    assert "WasmImports" in str(error)
    assert "dict" in str(error)


def test_without_fuel():
    """EngineConfig(fuel=False): no figures, set_fuel does nothing, call(fuel=) is refused, and deadlines still hold."""
    with Supervisor(limits=Limits(wall_s=60.0), engine=EngineConfig(fuel=False), spares=0) as host:
        instance = host.instantiate(host.compile(GUEST), imports())
        assert instance.fuel_consumed() is None
        instance.set_fuel(1)
        assert instance.call("add", [1, 2]) == [I32(3)]
        expect(CallError, Cause.USAGE, lambda: instance.call("ok", fuel=5))
        with pytest.raises(WasmError, match="wall-clock"):
            instance.call("spin", wall_s=0.1)


def test_two_supervisors_side_by_side(make_supervisor):
    """Each has its own limits, processes and cache; closing one is nothing to the other."""
    one, other = make_supervisor(memory_bytes=65536), make_supervisor(memory_bytes=131072)
    source = '(module (memory 1) (func (export "g") (result i32) (memory.grow (i32.const 1))))'
    first, second = (host.instantiate(host.compile(source)) for host in (one, other))
    assert first.call("g") == [I32(-1)]
    one.close()
    assert second.call("g") == [I32(1)]
