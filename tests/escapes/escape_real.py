"""A program: every attempt in a real worker, by a guest that calls a function which was shipped there.

Argument, as JSON: {"scene": …, "hardening": …, "granted": …}: whether the guest is granted two directories. Prints
JSON: {name: [outcome, error message or ""]}, and as the name "" what is asked beside: a locked worker's descriptors and
environment, and whether this user may read the kernel's log.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from typing import Any

import escape_table
from escape_scene import LEFT, OK, Scene

from pdsandbox import (
    Cause,
    Dir,
    HostFunction,
    Limits,
    Supervisor,
    Wasi,
    WasmImports,
    WorkerCrashed,
    in_worker,
)

GUEST = """(module
  (import "m" "attempt" (func $attempt (param i32) (result i32)))
  (import "m" "open" (func $open (param i32) (result i32)))
  (import "m" "variables" (func $variables (result i32)))
  (memory (export "memory") 1)
  (func (export "attempt") (param i32) (result i32) (call $attempt (local.get 0)))
  (func (export "open") (param i32) (result i32) (call $open (local.get 0)))
  (func (export "variables") (result i32) (call $variables))
  (func (export "ok") (result i32) (i32.const 42)))"""
_CODES = {
    OK: 0,
    "MemoryError": 1000,
    "RuntimeError": 1001,
    **{name: number for number, name in errno.errorcode.items()},
}
_NAMES = {number: name for name, number in _CODES.items()}
_OTHERWISE = -1


def imports(scene: Scene) -> WasmImports:
    """`attempt(n)` is the errno of attempt n; `open(n)` whether descriptor n is open, `variables()` how many
    environment variables there are."""

    def attempt(_caller: Any, number: int) -> int:
        # Through the module, which goes there by name: what is in it does not pickle.
        return _CODES.get(tuple(escape_table.ALL.values())[number].try_out(scene), _OTHERWISE)

    def is_open(_caller: Any, fd: int) -> int:
        poll = select.poll()
        poll.register(fd, 0)
        return int(not any(event & select.POLLNVAL for _, event in poll.poll(0)))

    def variables(_caller: Any) -> int:
        # Python sets this one itself where there is no locale (PEP 538).
        return len(os.environ.keys() - {"LC_CTYPE"})

    return WasmImports(
        functions={
            ("m", "variables"): HostFunction(in_worker(variables), (), ("i32",)),
            ("m", "attempt"): HostFunction(in_worker(attempt), ("i32",), ("i32",)),
            ("m", "open"): HostFunction(in_worker(is_open), ("i32",), ("i32",)),
        }
    )


def outcome_of(error: WorkerCrashed) -> str:
    """What an attempt that ended its worker came to."""
    if error.cause is Cause.SIGNAL:
        assert error.signal is not None
        return signal.Signals(error.signal).name
    return LEFT if error.cause is Cause.EXIT else f"{error.cause}"


def main(order: dict[str, Any]) -> None:
    hardened = order["hardening"] != "off"
    found: dict[str, Any] = {}
    with Supervisor(hardening=order["hardening"], limits=Limits(fuel=None, wall_s=60.0), spares=0) as host:
        module = host.compile(GUEST)
        sibling = host.instantiate(host.compile('(module (func (export "ok") (result i32) (i32.const 42)))'))
        scene = Scene(
            hardened=hardened,
            supervisor=os.getpid(),
            fork_server=host._processes.fork_server.pid,
            sibling=sibling.pid,
            **order["scene"],
        )
        offered = imports(scene)
        wasi = None
        if order["granted"]:
            directory = scene.directory
            wasi = Wasi(dirs=(Dir(f"{directory}/ro", "/ro"), Dir(f"{directory}/rw", "/rw", "rw")))
        instance = host.instantiate(module, offered, wasi=wasi)
        run = instance.func("attempt")
        if hardened:
            found[""] = {
                "descriptors": [fd for fd in range(1024) if instance.func("open")(fd)],
                "variables": instance.func("variables")(),
                "log": os.access("/dev/kmsg", os.R_OK),
            }
        for number, name in enumerate(escape_table.table_at("granted" if order["granted"] else "locked")):
            if not instance.alive:
                instance.close()
                instance = host.instantiate(module, offered, wasi=wasi)
                run = instance.func("attempt")
            try:
                found[name] = _NAMES.get(run(number), "otherwise"), ""
            except WorkerCrashed as error:
                found[name] = outcome_of(error), error.message
            else:
                # Whatever was tried, the guest goes on.
                assert instance.func("ok")() == 42
        # Nobody else was touched.
        assert sibling.call("ok")[0].value == 42
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
