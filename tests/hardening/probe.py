"""Run on a machine by `machines.py`: what a supervisor with a certain hardening reports, whether guests run, what
`doctor` says, whether strict refuses, and what it leaves behind. Prints one JSON object."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from typing import Any

from pdsandbox import EngineConfig, Hardening, HostFunction, Limits, Supervisor, Trap, WasmError, WasmImports, in_worker
from pdsandbox.cli.main import main as command

GUEST = """(module (import "env" "double" (func $double (param i32) (result i32)))
  (func (export "twice") (param i32) (result i32) (call $double (local.get 0)))
  (func (export "trap") unreachable))"""


def open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


def runs(host: Supervisor, fn: Any) -> bool:
    """A guest with a host function computes, traps, and computes again."""
    double = HostFunction(fn, params=("i32",), results=("i32",))
    with host.instantiate(host.compile(GUEST), WasmImports(functions={("env", "double"): double})) as instance:
        before = instance.func("twice")(4)
        try:
            instance.call("trap")
        except Trap:
            return bool(before == instance.func("twice")(4) == 8)
    return False


def _in_worker(host: Supervisor) -> bool | str:
    try:
        return runs(host, in_worker(lambda _caller, value: 2 * value))
    except WasmError as exc:
        return str(exc)


def doctor() -> tuple[int, Any]:
    """What the command says here: its exit code and its JSON."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = command(["doctor", "--json"])
    return code, json.loads(said.getvalue())


def main(hardening: Hardening) -> None:
    found: dict[str, Any] = {"uid": os.geteuid()}
    limits = Limits(wall_s=60.0)
    try:
        engine = EngineConfig(interruptible=True)  # with a thread, which must start before the limit on threads
        with Supervisor(hardening=hardening, limits=limits, engine=engine, spares=0) as host:
            found["report"] = host.hardening_report().as_dict()
            found["runs"] = runs(host, lambda _caller, value: 2 * value)
            found["runs_in_worker"] = _in_worker(host)
    except WasmError as exc:
        found["error"] = [type(exc).__name__, exc.cause.name, str(exc)]
    found["doctor"] = doctor()
    before = open_now(), children()
    found["strict"] = None
    try:
        Supervisor(hardening=dataclasses.replace(hardening, required=True), limits=limits).close()
    except WasmError as exc:
        found["strict"] = [type(exc).__name__, exc.cause.name, str(exc)]
    found["left"] = [before, (open_now(), children())] if (open_now(), children()) != before else []
    print(json.dumps(found))


if __name__ == "__main__":
    main(eval(sys.argv[1], {"Hardening": Hardening}))
