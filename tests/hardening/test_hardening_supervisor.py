"""`Supervisor(hardening=…)`: what is asked for is what workers have, seen from outside as well as by the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elsewhere import GUEST
from fork_server import FAILS_LATER, shell_wrapper, wrapper

from pdsandbox import (
    Cause,
    CompileError,
    EngineConfig,
    Hardening,
    HardeningReport,
    HostFunction,
    InstantiationError,
    Layer,
    State,
    Supervisor,
    Trap,
    WallClockExceeded,
    WasmImports,
    in_worker,
)

Make = Callable[..., Supervisor]

LANDLOCK = {Layer.LANDLOCK_FILES, Layer.LANDLOCK_TCP, Layer.LANDLOCK_SCOPE}
SWITCHED_OFF = {
    "rlimits": {Layer.RLIMITS},
    "oom_score": {Layer.OOM_SCORE},
    "uid": {Layer.UID},
    "capabilities": {Layer.CAPABILITIES},
    "landlock": LANDLOCK,
    "seccomp": {Layer.SECCOMP},
    "mdwe": {Layer.MDWE},
    "no_new_privs": {Layer.NO_NEW_PRIVS, Layer.SECCOMP} | LANDLOCK,
}
REFUSED = "landlock_restrict_self: Operation not permitted"


def state(report: HardeningReport) -> dict[Layer, State]:
    return {item.layer: item.state for item in report.workers}


def start(host: Supervisor, fn: Any = lambda _caller, value: 2 * value) -> Any:
    double = HostFunction(fn, params=("i32",), results=("i32",))
    return host.instantiate(host.compile(GUEST), WasmImports(functions={("env", "double"): double}))


def works(instance: Any) -> None:
    """Calls, host functions, growth, traps, and life after a trap."""
    assert instance.func("twice")(21) == 42
    assert instance.func("grow")() == 1
    with pytest.raises(Trap, match="unreachable"):
        instance.call("trap")
    assert instance.func("twice")(4) == 8


def facts(pid: int) -> dict[str, str]:
    """What the kernel says about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: value.split()[0] for name, value in (line.split(":", 1) for line in lines) if value.split()}
    return found | {"oom": Path(f"/proc/{pid}/oom_score_adj").read_text().strip()}


@pytest.fixture(scope="module")
def usual() -> dict[Layer, State]:
    """The states at default."""
    with Supervisor(spares=0) as host:
        return state(host.hardening_report())


@pytest.mark.parametrize("field", SWITCHED_OFF)
def test_one_layer_off(make_supervisor: Make, usual: dict[Layer, State], field: str) -> None:
    """A layer that is switched off is reported off, is off as the kernel sees it, takes no other along; guests run."""
    off = SWITCHED_OFF[field]
    rest = {"landlock": False, "seccomp": False} if field == "no_new_privs" else {}
    host = make_supervisor(Hardening(**{field: False}, **rest))
    report = host.hardening_report()
    for items in (report.workers, report.compilers):
        for item in items:
            if item.layer in off:
                assert (item.state, item.detail) == (State.OFF, "not asked for")
    others = set(Layer) - off - {Layer.UNDUMPABLE}  # which comes with a change of user
    assert {layer: state(report)[layer] for layer in others} == {layer: usual[layer] for layer in others}
    with start(host) as instance:
        works(instance)
        seen = facts(instance.pid)
    active = {layer for layer, is_so in state(report).items() if is_so is State.ACTIVE}
    assert (seen["Seccomp"] == "2") == (Layer.SECCOMP in active)
    assert (seen["NoNewPrivs"] == "1") >= (Layer.NO_NEW_PRIVS in active)
    assert (seen["Uid"] == "65534") == (Layer.UID in active)
    assert (int(seen["CapEff"], 16) == 0) >= (Layer.CAPABILITIES in active)
    assert (seen["oom"] == "1000") >= (Layer.OOM_SCORE in active)


def test_all_off(make_supervisor: Make) -> None:
    """ "off" reports all off but what every worker has by its birth, and the kernel agrees."""
    host = make_supervisor("off")
    report = host.hardening_report()
    assert report.complete
    for items in (report.workers, report.compilers):
        off = {item.layer for item in items if item.state is State.OFF}
        assert off == set(Layer) - {Layer.CLEAN_START, Layer.PARENT_DEATH}
    with start(host) as instance:
        works(instance)
        seen, ours = facts(instance.pid), facts(os.getpid())
    for name in ("Seccomp", "NoNewPrivs", "Uid", "Gid", "CapEff", "oom"):
        assert seen[name] == ours[name]


@pytest.mark.parametrize("hardening", ["default", Hardening(), None], ids=str)
def test_the_report_says_what_was_asked_for(make_supervisor: Make, hardening: Any) -> None:
    """The report carries the value, names the machine, has each layer once in order, and does not change."""
    host = make_supervisor(hardening)
    report = host.hardening_report()
    assert report.hardening == host.hardening == Hardening()
    assert report.system.startswith("Linux ")
    assert [item.layer for item in report.workers] == [item.layer for item in report.compilers] == list(Layer)
    assert host.hardening_report() == report


def test_profiles_differ(make_supervisor: Make, usual: dict[Layer, State]) -> None:
    """A compiler makes machine code, and its report says so instead of claiming what only workers have."""
    report = make_supervisor("default").hardening_report()
    (compiler,) = (item for item in report.compilers if item.layer is Layer.MDWE)
    assert (compiler.state, compiler.detail) == (State.OFF, "a compiler makes machine code")
    if usual[Layer.SECCOMP] is State.ACTIVE:
        (ours,), (theirs,) = (
            [item.detail for item in items if item.layer is Layer.SECCOMP]
            for items in (report.workers, report.compilers)
        )
        assert ours != theirs


def test_strict(make_supervisor: Make, usual: dict[Layer, State]) -> None:
    """Where all is to be had, strict starts and guests run."""
    if State.MISSING in usual.values():
        pytest.skip("this machine lacks a layer")
    with start(make_supervisor("strict")) as instance:
        works(instance)


def test_required_refuses(tmp_path: Path) -> None:
    """What is missing, why and what to do stand in the refusal; no process and no descriptor is left (conftest)."""
    with pytest.raises(InstantiationError) as caught:
        Supervisor(hardening="strict", python=shell_wrapper(tmp_path))
    assert caught.value.cause is Cause.HOST
    assert "workers cannot be locked down as required: clean start: " in caught.value.message
    assert "the environment holds P" in caught.value.message
    assert "let python= name the interpreter itself" in caught.value.message


def test_a_layer_that_is_not_asked_for_is_not_required(tmp_path: Path, usual: dict[Layer, State]) -> None:
    """Required with layers switched off starts where only those are missing."""
    if State.MISSING in usual.values():
        pytest.skip("this machine lacks a layer")
    code = "from pdsandbox.platform.lockdown import landlock\ndef abi(): raise OSError(38, 'no')\nlandlock.abi = abi"
    python = wrapper(tmp_path, code)
    with pytest.raises(InstantiationError, match="landlock: files, landlock: tcp, landlock: scope: this kernel has no"):
        Supervisor(hardening="strict", python=python)
    Supervisor(hardening=Hardening(landlock=False, required=True), python=python, spares=0).close()


@pytest.mark.usefixtures("patience")
def test_what_could_not_be_seen_to_hold_is_applied(
    make_supervisor: Make, usual: dict[Layer, State], tmp_path: Path
) -> None:
    """A clean start that is none is missing and costs no other layer, nor the thread that an interrupt needs."""
    host = make_supervisor("default", python=shell_wrapper(tmp_path), engine=EngineConfig(interruptible=True))
    found = state(host.hardening_report())
    assert found == usual | {Layer.CLEAN_START: State.MISSING}
    module = host.compile(
        '(module (func (export "spin") (loop (br 0))) (func (export "one") (result i32) (i32.const 1)))'
    )
    with host.instantiate(module) as instance:
        limits = Path(f"/proc/{instance.pid}/limits").read_text().splitlines()
        assert [line.split()[2:4] for line in limits if line.startswith("Max processes")] == [["0", "0"]]
        with pytest.raises(WallClockExceeded):
            instance.call("spin", [], wall_s=0.05, fuel=1 << 62)
        assert instance.func("one")() == 1


@pytest.mark.parametrize("role", ["WORKER", "COMPILER"])
def test_one_kinds_lack_is_not_the_others(
    make_supervisor: Make, usual: dict[Layer, State], tmp_path: Path, role: str
) -> None:
    """What cannot be applied in compilers is still applied in workers, and the other way round, as reported."""
    if usual[Layer.SECCOMP] is not State.ACTIVE:
        pytest.skip("there is no filter here")
    code = f"""
from pdsandbox.protocol.control import Role
from pdsandbox.worker import lockdown
real = lockdown.Lockdown._build_filters
class Fails:
    def install_here(self): raise OSError(22, "seccomp: Invalid argument")
def build(self):
    real(self)
    self._filters[Role.{role}] = Fails()
lockdown.Lockdown._build_filters = build
"""
    host = make_supervisor("default", python=wrapper(tmp_path, code))
    report = host.hardening_report()
    found = [
        next(item.state for item in items if item.layer is Layer.SECCOMP)
        for items in (report.workers, report.compilers)
    ]
    assert found == ([State.MISSING, State.ACTIVE] if role == "WORKER" else [State.ACTIVE, State.MISSING])
    assert [item.layer for item in report.missing] == [Layer.SECCOMP]
    with start(host) as instance:
        works(instance)
        assert facts(instance.pid)["Seccomp"] == ("0" if role == "WORKER" else "2")


def test_a_worker_that_cannot_be_locked_down(make_supervisor: Make, tmp_path: Path) -> None:
    """When it fails after the survey has passed, the guest is never run: InstantiationError, HOST, with the reason."""
    python = wrapper(tmp_path, FAILS_LATER.format(method="enter", role=0))
    host = make_supervisor("default", python=python)
    assert host.hardening_report().missing == make_supervisor("default").hardening_report().missing
    module = host.compile('(module (func (export "f")))')
    with pytest.raises(InstantiationError) as caught:
        host.instantiate(module)
    assert caught.value.cause is Cause.HOST
    assert caught.value.message == f"a worker could not be locked down: [Errno 1] {REFUSED}"


def test_a_compiler_that_cannot_be_locked_down(make_supervisor: Make, tmp_path: Path) -> None:
    """The same for a compiler: CompileError, HOST, and the source was never read."""
    host = make_supervisor("default", python=wrapper(tmp_path, FAILS_LATER.format(method="enter", role=1)))
    with pytest.raises(CompileError) as caught:
        host.compile('(module (func (export "f")))')
    assert caught.value.cause is Cause.HOST
    assert caught.value.message == f"a compiler could not be locked down: [Errno 1] {REFUSED}"


@pytest.mark.parametrize("method", ["lock", "enter"])
def test_a_lock_that_fails_while_loading(make_supervisor: Make, tmp_path: Path, method: str) -> None:
    """Between loading and the first instruction, too: HOST, with the reason, and the guest never ran."""
    role = "None" if method == "lock" else 0
    host = make_supervisor("default", python=wrapper(tmp_path, FAILS_LATER.format(method=method, role=role)))
    told: list[int] = []
    fn = in_worker(lambda _caller, value: value) if method == "enter" else lambda _caller, value: told.append(value)
    with pytest.raises(InstantiationError) as caught:
        start(host, fn)
    assert caught.value.cause is Cause.HOST
    assert caught.value.message == f"a worker could not be locked down: [Errno 1] {REFUSED}"
    assert told == []
