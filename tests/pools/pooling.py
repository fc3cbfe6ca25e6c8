"""What the tests of pools share: a guest whose host functions tell, hold and kill, and threads whose outcome counts."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from leaks import wait_until

from pdsandbox import HostFunction, WasmError, WasmImports

#: Bounds a wait for what takes milliseconds; only a failing test waits so long.
PATIENCE_S = 60.0
SOURCE = """(module
  (import "m" "work" (func $work (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "work") (param i32) (result i32) (call $work (local.get 0)))
  (func (export "count") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "trap") (unreachable))
  (func (export "loop") (loop $l (br $l))))"""


class Scene:
    """A pool of SOURCE. `work(n)` notes n; holds until `release()` if n is in `holds`; calls `does[n]` if there is one;
    and answers n + 1."""

    def __init__(self, host: Any, source: str = SOURCE, **options: Any) -> None:
        self.host = host
        self.calls: list[int] = []
        self.holds: set[int] = set()
        self.does: dict[int, Any] = {}
        self._gate = threading.Event()
        self.imports = WasmImports(functions={("m", "work"): HostFunction(self._work, ("i32",), ("i32",))})
        self.pool = host.pool(host.compile(source), self.imports, **options)

    def _work(self, _caller: Any, value: int) -> int:
        self.calls.append(value)
        if value in self.holds:
            assert self._gate.wait(PATIENCE_S)
        self.does.get(value, lambda: None)()
        return value + 1

    def release(self) -> None:
        self._gate.set()

    def holding(self, value: int, **options: Any) -> Thread:
        """A thread whose call is in its host function by now."""
        self.holds.add(value)
        thread = Thread(lambda: self.pool.call("work", [value], **options))
        eventually(lambda: value in self.calls)
        return thread

    def queued(self, value: int, **options: Any) -> Thread:
        """A thread whose call waits by now."""
        before = self.pool._roster.waiting
        thread = Thread(lambda: self.pool.call("work", [value], **options))
        eventually(lambda: self.pool._roster.waiting == before + 1)
        return thread

    def dying(self) -> None:
        """Kill every worker that is in use."""
        for slot in list(self.pool._roster.leased):
            os.kill(slot.instance.pid, signal.SIGKILL)


class Thread:
    """`action` in a thread; `result()` waits for it and returns or raises what it did."""

    def __init__(self, action: Any) -> None:
        self._action = action
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as exc:
            self._error = exc

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value


def eventually(condition: Any) -> None:
    """Poll `condition`, bounded, until it holds."""
    assert wait_until(condition, PATIENCE_S), "it never came about"


def expect(cls: type[WasmError], cause: Any, action: Any) -> Any:
    """`action()` raises exactly this class with this cause; the error."""
    with pytest.raises(WasmError) as caught:
        action()
    assert (type(caught.value), caught.value.cause) == (cls, cause), repr(caught.value)
    return caught.value
