"""On machines that lack something nothing is silently weaker: the report and `doctor` say so, strict refuses and leaves
nothing behind, default still runs guests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from elsewhere import on_machine

Machine = Callable[..., Any]

LANDLOCK = {"landlock_files", "landlock_tcp", "landlock_scope"}
BOTH, WORKERS = ("workers", "compilers"), ("workers",)

#: conditions, the layers that are missing, in which kinds of process, and what the report says to do about it
MACHINES = [
    ("no-seccomp root", {"seccomp"}, BOTH, "needs CONFIG_SECCOMP_FILTER, and a container that allows them"),
    ("no-seccomp ordinary", {"seccomp"}, BOTH, "needs CONFIG_SECCOMP_FILTER, and a container that allows them"),
    ("no-landlock root", LANDLOCK, BOTH, "needs Linux 5.13"),
    ("no-landlock ordinary", LANDLOCK, BOTH, "needs Linux 5.13"),
    ("landlock-off", LANDLOCK, BOTH, 'add "landlock" to the boot parameter lsm='),
    ("landlock-refused", LANDLOCK, BOTH, "allow it there"),
    ("landlock-deadly", LANDLOCK, BOTH, "ends the process (SIGSYS)"),
    ("restrict-deadly", LANDLOCK, BOTH, "ends the process (SIGSYS)"),
    ("no-mdwe", {"mdwe"}, WORKERS, "needs Linux 6.3"),
    ("mdwe-deadly", {"mdwe"}, WORKERS, "ends the process (SIGSYS)"),
    ("no-setuid", {"uid"}, BOTH, "root without SETUID, SETGID and KILL: grant them"),
    ("user-namespace", {"uid"}, BOTH, "map them into it"),
    ("ordinary user-namespace", {"uid"}, BOTH, "map them into it"),
    ("read-only-proc", {"oom_score", "rlimits"}, BOTH, "give the service a writable /proc"),
    ("no-seccomp no-landlock no-mdwe ordinary", {"seccomp", "mdwe"} | LANDLOCK, WORKERS, "needs"),
]


def states(report: Any, who: str, state: str) -> set[str]:
    return {row["layer"] for row in report[who] if row["state"] == state}


@pytest.mark.parametrize(("conditions", "missing", "where", "remedy"), MACHINES, ids=[m[0] for m in MACHINES])
def test_what_is_missing_is_said(machine: Machine, conditions: str, missing: set[str], where: Any, remedy: str) -> None:
    """The report names exactly what is missing, why, at what cost; doctor exits with 78; strict refuses; guests run."""
    found = machine(conditions)
    report = found["report"]
    for who in where:
        assert states(report, who, "missing") == missing
        for row in report[who]:
            if row["layer"] in missing:
                assert remedy in row["detail"]
                assert row["cost"]
    assert report["complete"] is False
    assert (found["runs"], found["runs_in_worker"]) == (True, True)
    code, said = found["doctor"]
    assert (code, said["exit_code"], said["ok"], said["runs"]) == (78, 78, False, True)
    assert set(said["missing"]) == missing
    error, cause, text = found["strict"]
    assert (error, cause) == ("InstantiationError", "HOST")
    assert "workers cannot be locked down as required" in text
    assert remedy in text
    assert found["left"] == []


@pytest.mark.parametrize("conditions", ["as-it-is", "root", "ordinary", "no-tcp", "no-sys-admin"])
def test_nothing_is_missing_where_there_is_all(machine: Machine, conditions: str) -> None:
    """As root, as an ordinary user, where a sandbox forbids TCP: complete here, and so for doctor and strict."""
    here = machine("as-it-is")["report"]
    if not here["complete"]:
        pytest.skip("this machine itself lacks a layer")
    found = machine(conditions)
    assert found["report"]["complete"] is True
    assert (found["runs"], found["runs_in_worker"]) == (True, True)
    assert found["doctor"][0] == 0
    assert found["strict"] is None
    assert found["left"] == []


def test_an_ordinary_users_workers_keep_the_user(machine: Machine) -> None:
    """Without root there is no other user to become: said, with the user's id, and not called missing."""
    found = machine("ordinary")
    assert found["uid"] != 0
    for who in BOTH:
        (row,) = (row for row in found["report"][who] if row["layer"] == "uid")
        assert row["state"] == "not needed"
        assert f"ordinary user (uid {found['uid']})" in row["detail"]


@pytest.mark.parametrize("conditions", ["root", "ordinary"])
def test_namespaces(machine: Machine, conditions: str) -> None:
    """Namespaces are active where they were asked for, and cost no other layer."""
    without = machine(conditions)["report"]
    found = machine(conditions, "Hardening(namespaces=True)")
    if states(found["report"], "workers", "missing") == {"namespaces"}:
        pytest.skip("this machine allows no namespaces")
    for who in BOTH:
        assert states(found["report"], who, "active") == states(without, who, "active") | {"namespaces"}
        assert states(found["report"], who, "missing") == states(without, who, "missing")
    assert found["runs"] is True


def test_namespaces_do_not_cost_the_change_of_user(machine: Machine) -> None:
    """Root without SYS_ADMIN would need a user namespace, with no other user in it: namespaces are what is missing."""
    found = machine("no-sys-admin", "Hardening(namespaces=True)")
    assert states(found["report"], "workers", "missing") == {"namespaces"}
    assert "uid" in states(found["report"], "workers", "active")
    assert "grant SYS_ADMIN" in found["strict"][2]


def test_where_workers_cannot_run(machine: Machine) -> None:
    """Without pidfds there are no workers, and so no report: doctor exits with 71 and says why."""
    found = machine("no-pidfd")
    assert found["error"][:2] == ["InstantiationError", "HOST"]
    code, said = found["doctor"]
    assert (code, said["runs"], said["workers"], said["complete"]) == (71, False, [], False)
    assert "Linux 5.4" in said["error"]["message"]
    assert "Linux 5.4" in found["strict"][2]


@pytest.mark.parametrize(
    ("conditions", "code", "words"),
    [
        (
            "no-seccomp root",
            78,
            ["WEAKER THAN ASKED FOR: 1 layer missing", "Nothing but wasm itself", "most of the kernel's bugs"],
        ),
        ("no-landlock ordinary", 78, ["WEAKER THAN ASKED FOR: 3 layers missing", "an ordinary user (uid", "cost: "]),
        ("no-pidfd", 71, ["WORKERS DO NOT RUN HERE", "Linux 5.4"]),
    ],
)
def test_the_command(conditions: str, code: int, words: list[str]) -> None:
    """The real command, read by a person on such a machine: exit code, verdict, cost; plain text, nothing on stderr."""
    ended = on_machine(conditions, "-m", "pdsandbox", "doctor")
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout.isascii()
    for word in words:
        assert word in ended.stdout


def test_run_refuses_when_strict(tmp_path: Any) -> None:
    """`run --hardening strict` runs nothing where a layer is missing: exit code 71, and where to look."""
    module = tmp_path / "seven.wat"
    module.write_text('(module (func (export "seven") (result i32) (i32.const 7)))')
    command = ("-m", "pdsandbox", "run", str(module), "--json")
    assert json.loads(on_machine("no-seccomp", *command).stdout)["results"] == [{"type": "i32", "value": 7}]
    ended = on_machine("no-seccomp", *command[:-1], "--hardening", "strict")
    assert (ended.returncode, ended.stdout) == (71, "")
    assert "workers cannot be locked down as required: seccomp filter: " in ended.stderr
    assert "`pdsandbox doctor`" in ended.stderr
