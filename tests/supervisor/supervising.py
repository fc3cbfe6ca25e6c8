"""What the supervisor's tests share: guests, threads whose outcome counts, and a list of the children asked for."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leaks import wait_until

import pdsandbox
from pdsandbox import HostFunction, WasmError, WasmImports
from pdsandbox.protocol.control import Role

MIB = 1 << 20
PAGE = 65536
#: Bounds a wait for what takes milliseconds; only a failing test waits so long.
PATIENCE_S = 60.0

#: One guest for most tests. `tell` calls the host once, `ask` gets an answer; `run` tells and then loops for ever.
GUEST = """(module
  (import "env" "tell" (func $tell (param i32)))
  (import "env" "ask" (func $ask (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "tell") (param i32) (call $tell (local.get 0)))
  (func (export "ask") (param i32) (result i32) (call $ask (local.get 0)))
  (func (export "run") (call $tell (i32.const 0)) (loop $again (br $again)))
  (func (export "spin") (loop $again (br $again)))
  (func (export "run_if") (param i32) (if (local.get 0) (then (call $tell (i32.const 0)) (loop $again (br $again)))))
  (func (export "trap") (unreachable)))"""


def imports(
    tell: Callable[[int], Any] = lambda _value: None, ask: Callable[[int], int] = lambda value: value
) -> WasmImports:
    """What GUEST imports; both run in the supervisor."""
    return WasmImports(
        functions={
            ("env", "tell"): HostFunction(lambda _caller, value: tell(value) and None, ("i32",)),
            ("env", "ask"): HostFunction(lambda _caller, value: ask(value), ("i32",), ("i32",)),
        }
    )


def make_guest(host: Any, **callbacks: Callable[[int], Any]) -> Any:
    """An instance of GUEST."""
    return host.instantiate(host.compile(GUEST), imports(**callbacks))


def expect(cls: type[WasmError], cause: Any, action: Callable[[], Any]) -> Any:
    """`action()` raises exactly this class with this cause; the error."""
    with pytest.raises(WasmError) as caught:
        action()
    found = caught.value
    assert (type(found), found.cause) == (cls, cause), repr(found)
    return found


def gone(instance: Any, cls: type[WasmError], cause: Any) -> None:
    """Every use of the instance raises the same class with the first cause."""
    assert not instance.alive
    for use in (
        lambda: instance.call("ok"),
        lambda: instance.call_many("ok", [[]]),
        lambda: instance.memory_read(0, 1),
        lambda: instance.memory_read_into(0, bytearray(1)),
        lambda: instance.memory_write(0, b"x"),
        lambda: instance.set_fuel(1),
    ):
        expect(cls, cause, use)


class Thread:
    """`action` in a thread; `result()` waits for it and returns or raises what it did."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._value = action()
            except BaseException as exc:
                self._error = exc

        self._thread = threading.Thread(target=run)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the thread hangs"
        if self._error is not None:
            # Raised afresh each time it is asked for; the frames of the thread must not keep what it held.
            raise self._error.with_traceback(None)
        return self._value


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own, all at once; their results, or the first failure."""
    barrier = threading.Barrier(len(actions))

    def starting(action: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            barrier.wait(PATIENCE_S)
            return action()

        return run

    threads = [Thread(starting(action)) for action in actions]
    return [thread.result() for thread in threads]


class SpawnLog:
    """Handles of the children that were asked for, in order."""

    def __init__(self) -> None:
        self._all: list[tuple[int, Any]] = []

    def add(self, role: int, handle: Any) -> None:
        self._all.append((role, handle))

    @property
    def compilers(self) -> list[Any]:
        return [handle for role, handle in self._all if role == Role.COMPILER]

    @property
    def workers(self) -> list[Any]:
        return [handle for role, handle in self._all if role == Role.WORKER]

    def pid_of(self, handle: Any) -> int:
        """Its process, once there is one."""
        assert handle.wait_settled(PATIENCE_S)
        assert handle.pid is not None
        pid: int = handle.pid
        return pid


def eventually(condition: Callable[[], bool]) -> None:
    """Poll `condition`, bounded, until it holds."""
    assert wait_until(condition, PATIENCE_S), "it never came about"


def stop_process(pid: int) -> None:
    """SIGSTOP, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)

    def stopped() -> bool:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            return stat.read().rpartition(b") ")[2][:1] in (b"T", b"t", b"Z")

    eventually(stopped)


def wait_process_ends(pid: int) -> None:
    """Until the process, which may be a grandchild, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], f"process {pid} does not end"
    finally:
        os.close(descriptor)


def fork_server_of(host: Any) -> Any:
    """The fork server that runs for this supervisor now."""
    return host._processes.fork_server


def children_of(host: Any) -> list[Any]:
    """Handles of its workers and compilers that are not known to have ended."""
    handles: list[Any] = fork_server_of(host).handles()
    return handles


def spares_of(host: Any) -> list[Any]:
    """Handles of the workers that wait for an instance."""
    return [handle for handle, _ in list(host._processes.spares)]


def import_path() -> list[str]:
    """What a script needs on `sys.path` to import this module and the package under test."""
    here = Path(__file__).parent
    return [str(here), str(here.parent), str(Path(pdsandbox.__file__).parents[1])]


def memfds() -> int:
    """How many sealed artifacts this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:pdsandbox-artifact")
        except OSError:
            continue
    return found
