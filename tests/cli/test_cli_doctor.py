"""`pdsandbox doctor`: the words, the table, JSON and exit codes; what it sees is tested in tests/hardening."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdsandbox import Cause, Hardening, HardeningReport, InstantiationError, Layer, LayerReport, State, Supervisor
from pdsandbox.cli import hosts
from pdsandbox.cli.checkup import Checkup
from pdsandbox.hardening import OFF

Cli = Callable[..., Any]

MISSING = {
    Layer.LANDLOCK_FILES: LayerReport(Layer.LANDLOCK_FILES, State.MISSING, "this kernel has none: update it"),
    Layer.LANDLOCK_TCP: LayerReport(Layer.LANDLOCK_TCP, State.MISSING, "this kernel has none: update it"),
    Layer.SECCOMP: LayerReport(Layer.SECCOMP, State.MISSING, "refused: allow it"),
}
NO_WORKER = InstantiationError("a worker could not be started: no memory", cause=Cause.HOST)


def checkup(
    given: dict[Layer, LayerReport] | None = None,
    *,
    name: str = "default",
    error: Any = None,
    rest: State = State.ACTIVE,
) -> Checkup:
    """All layers `rest` in both kinds of process, but for what is given."""
    rows = tuple((given or {}).get(layer, LayerReport(layer, rest, f"saw {layer.value}")) for layer in Layer)
    return Checkup(name, HardeningReport(Hardening(), "Linux 6.1.0, x86_64", rows, rows), error)


def text(found: Checkup) -> str:
    return "\n".join(found.lines())


@pytest.fixture(scope="module")
def here() -> HardeningReport:
    """What a supervisor reports on this machine."""
    with Supervisor(spares=0) as host:
        return host.hardening_report()


def test_here(cli: Cli, here: HardeningReport) -> None:
    """On this machine: every layer of both profiles, plain text, the exit code that the report deserves."""
    ended = cli("doctor")
    assert (ended.code, ended.err) == (0 if here.complete else 78, "")
    assert ended.out.isascii()
    assert ended.out.isprintable() or "\x1b" not in ended.out
    assert here.system in ended.out
    assert "workers: run" in ended.out
    for worker, compiler in zip(here.workers, here.compilers, strict=True):
        (line,) = (line for line in ended.out.splitlines() if line.startswith(f"{worker.layer.value:20} "))
        assert worker.state.value in line[20:33].lower()
        assert compiler.state.value in line[33:45].lower()


def test_json_here(cli: Cli, here: HardeningReport) -> None:
    """--json is the report as data, and the exit status beside it."""
    for name, required in (("default", False), ("strict", True)):
        ended = cli("doctor", "--json", "--hardening", name)
        found = ended.json
        assert (ended.code, ended.err) == (found["exit_code"], "")
        assert found["exit_code"] == (0 if here.complete else 78)
        assert found["ok"] is found["complete"] is here.complete
        expected = here.as_dict()
        assert {key: found[key] for key in ("system", "workers", "compilers")} == {
            key: expected[key] for key in ("system", "workers", "compilers")
        }
        assert found["hardening"] == {"name": name, **expected["hardening"], "required": required}
        assert found["missing"] == [item.layer.name.lower() for item in here.missing]
        assert (found["runs"], found["error"]) == (True, None)


def test_off(cli: Cli) -> None:
    """Off is what was asked for, so it is no failure; and nobody can take it for a lock-down."""
    ended = cli("doctor", "--hardening", "off")
    assert ended.code == 0
    assert ended.out.startswith("NOT LOCKED DOWN: ")
    assert "Nothing but wasm itself stands between a guest and: the files of this machine; the network" in ended.out
    found = cli("doctor", "--hardening", "off", "--json").json
    assert found["hardening"]["seccomp"] is False
    assert "most of the kernel's bugs" in found["open_to"]


def test_strict_is_asked_and_does_not_refuse(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for strict, it still shows the report where a service would only be refused."""
    asked: list[Hardening] = []

    def open_supervisor(hardening: Hardening) -> Supervisor:
        asked.append(hardening)
        return Supervisor(hardening=OFF, spares=0)

    monkeypatch.setattr(hosts, "open_supervisor", open_supervisor)
    assert cli("doctor", "--hardening", "strict").code == 0
    assert asked == [Hardening()]


@pytest.mark.parametrize(
    ("found", "code", "verdict"),
    [
        (checkup(), 0, "LOCKED DOWN: all that was asked for is active"),
        (checkup({Layer.UID: LayerReport(Layer.UID, State.NOT_NEEDED, "ordinary")}), 0, "LOCKED DOWN: "),
        (checkup(name="off", rest=State.OFF), 0, "NOT LOCKED DOWN: "),
        (checkup(MISSING), 78, "WEAKER THAN ASKED FOR: 3 layers missing; "),
        (checkup(error=NO_WORKER), 71, "WORKERS DO NOT RUN HERE"),
        (checkup(MISSING, error=NO_WORKER), 71, "WORKERS DO NOT RUN HERE"),
        (Checkup("default", None, NO_WORKER), 71, "WORKERS DO NOT RUN HERE"),
    ],
)
def test_verdicts(found: Checkup, code: int, verdict: str) -> None:
    """The first line is the verdict, and the exit code says the same; workers that do not run outweigh all else."""
    assert found.exit_code == found.document()["exit_code"] == code
    assert found.document()["ok"] is (code == 0)
    assert text(found).startswith(verdict)
    assert (found.error is not None) == (NO_WORKER.message in text(found))


def test_what_is_missing() -> None:
    """For each missing layer: why and what to do, once a reason, and each layer's cost; the table points there."""
    said = text(checkup(MISSING))
    assert "seccomp filter       MISSING     MISSING     see below" in said
    assert said.count("this kernel has none: update it") == 1
    assert "  landlock: files, landlock: tcp: this kernel has none: update it\n    cost: " in said
    for item in MISSING.values():
        assert f"    cost: {item.cost}" in said


def test_profiles_side_by_side() -> None:
    """Where worker and compiler differ each has its own line; where they do not there is one."""
    found = checkup()
    assert found.report is not None
    compilers = [
        LayerReport(Layer.MDWE, State.OFF, "it makes code") if i.layer is Layer.MDWE else i
        for i in found.report.workers
    ]
    differ = Checkup("default", HardeningReport(Hardening(), "Linux", found.report.workers, tuple(compilers)), None)
    lines = text(differ).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("no executable gain"))
    assert " ".join(lines[at].split()) == "no executable gain active off worker: saw no executable gain"
    assert lines[at + 1].strip() == "compiler: it makes code"
    assert text(differ).count("saw user id") == 1


@pytest.mark.parametrize(
    ("missing", "way", "is_open"),
    [
        ({Layer.SECCOMP}, "most of the kernel's bugs", True),
        ({Layer.SECCOMP}, "the files of this machine", False),
        ({Layer.SECCOMP, Layer.LANDLOCK_FILES}, "the files of this machine", True),
        ({Layer.LANDLOCK_TCP}, "the network", False),
        ({Layer.SECCOMP, Layer.NAMESPACES}, "the network", True),
        ({Layer.UID}, "other processes of the service's user", False),
        ({Layer.UID, Layer.SECCOMP}, "other processes of the service's user", True),
    ],
)
def test_ways_that_are_open(missing: set[Layer], way: str, is_open: bool) -> None:
    """A way is called open when no layer that closes all of it is active, and only then."""
    found = checkup({layer: LayerReport(layer, State.MISSING, "none") for layer in missing})
    assert (way in found.open_to) is is_open
    stands = [line for line in text(found).splitlines() if line.startswith("Nothing but wasm itself")]
    assert (way in "".join(stands)) is is_open


def test_no_machine_for_workers(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system there is no report: 71, the reason, and JSON with the same keys."""
    from pdsandbox.platform import os_

    keys = cli("doctor", "--json").json.keys()
    monkeypatch.setattr(os_, "missing", lambda: "worker processes need Linux; this is another")
    ended = cli("doctor")
    assert (ended.code, ended.err) == (71, "")
    assert "workers: do not run: worker processes need Linux; this is another" in ended.out
    found = cli("doctor", "--json").json
    assert found.keys() == keys
    assert (found["complete"], found["workers"], found["error"]["cause"]) == (False, [], "host")


def test_a_guest_that_does_not_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report alone is not enough: where the guest cannot be started it is 71, with the table."""

    def refuse(*_args: Any) -> Any:
        raise NO_WORKER

    monkeypatch.setattr(Supervisor, "instantiate", refuse)
    ended = cli("doctor")
    assert ended.code == 71
    assert "workers: do not run: a worker could not be started: no memory" in ended.out
    assert "seccomp filter" in ended.out


def test_a_python_without_wasmtime(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wasmtime is a reason like others: 71, and how to install it."""
    from pdsandbox.cli import checkup as room
    from pdsandbox.supervisor import processes

    def none() -> Any:
        raise ImportError("pdsandbox needs the package wasmtime; install it with: pip")

    monkeypatch.setattr(processes, "wasmtime_library", none)
    monkeypatch.setattr(room, "wasmtime_library", none)
    ended = cli("doctor")
    assert ended.code == 71
    assert "install it with: pip" in ended.out
    assert "no wasmtime that fits" in ended.out


def test_usage(cli: Cli) -> None:
    """An unknown hardening is a usage error that lists what there is; help names every exit code."""
    ended = cli("doctor", "--hardening", "loose")
    assert (ended.code, ended.out) == (2, "")
    assert "'default', 'strict', 'off'" in ended.err
    help_ = cli("doctor", "--help").out
    for code in ("0 ", "78 ", "71 "):
        assert f"  {code}" in help_
    assert "doctor only" in next(line for line in cli("--help").out.splitlines() if line.startswith("  78 "))


def test_run_takes_hardening(cli: Cli, functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run --hardening` reaches the supervisor; without it, it is the default."""
    opened, real = [], hosts.open_host

    def open_host(limits: Any, hardening: str = "default") -> Any:
        opened.append(hardening)
        return real(limits, hardening)

    monkeypatch.setattr(hosts, "open_host", open_host)
    for args, name in (([], "default"), (["--hardening", "strict"], "strict"), (["--hardening", "off"], "off")):
        assert cli("run", *args, functions, "add", "1", "2").out == "3\n"
        assert opened.pop() == name
    assert cli("run", "--hardening", "none", functions, "add", "1", "2").code == 2


def test_on_a_terminal(here: HardeningReport) -> None:
    """On a terminal: the same table with colours, and the same exit code."""
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "pdsandbox", "doctor"],
            stdout=theirs,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        ) as process:
            os.close(theirs)
            theirs = -1
            said = b""
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # how Linux ends a terminal
                    break
                said += data
            assert process.stderr is not None
            assert process.stderr.read() == b""
    finally:
        for fd in (ours, theirs):
            if fd >= 0:
                os.close(fd)
    assert process.returncode == (0 if here.complete else 78)
    shown = said.decode()
    assert "\x1b[32mactive" in shown
    for layer in Layer:
        assert layer.value in shown


def test_strict_json_for_scripts(
    command: Callable[..., subprocess.CompletedProcess[str]], here: HardeningReport
) -> None:
    """The real command in a script: one object on standard output, the exit code in it and of the process."""
    ended = command("doctor", "--hardening", "strict", "--json")
    assert ended.stderr == ""
    assert json.loads(ended.stdout)["exit_code"] == ended.returncode == (0 if here.complete else 78)
