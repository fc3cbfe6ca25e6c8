"""Raises an exception at the n-th point of a piece of code at which CPython would run a signal handler.

Those points are: entry of a function, after a call, at a backward jump. Trace functions run just before the next
instruction, so a point is left out when that one is covered by another exception handler than the instruction that the
real signal would have interrupted.
"""

from __future__ import annotations

import dis
import functools
import gc
import opcode
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_NAMES = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME")
_LOOKS_AT_SIGNALS = frozenset(opcode.opmap[name] for name in _NAMES if name in opcode.opmap)
#: Finalisers swallow what is raised in them, and modules being imported are not to be left half-way.
_SKIPPED = ("weakref.py", "_weakrefset.py", "interrupts.py")


class Interrupt(KeyboardInterrupt):
    """What the signal handler raises."""


@functools.cache
def _handlers(code: CodeType) -> list[Any]:
    return dis._parse_exception_table(code)  # type: ignore[attr-defined]


def _handler(code: CodeType, at: int) -> tuple[int, int] | None:
    for entry in _handlers(code):
        if entry.start <= at < entry.end:
            return entry.target, entry.depth
    return None


class Injector:
    """`run(action)` raises Interrupt at point number `number` of it; `where` says where that was, or is None."""

    def __init__(self, number: int) -> None:
        self.where: str | None = None
        self._left = number
        self._last: dict[FrameType, int] = {}

    def run(self, action: Callable[[], Any]) -> Any:
        # A collection comes when it likes: the finalisers of what an earlier test left are no part of the action.
        gc.disable()
        sys.settrace(self._enter)
        try:
            return action()
        finally:
            sys.settrace(None)
            gc.enable()
            self._last.clear()  # what raises in a trace function ends tracing: these frames would live on

    def _enter(self, frame: FrameType, event: str, _arg: Any) -> Any:
        name = frame.f_code.co_filename
        if self.where is not None or name.endswith(_SKIPPED) or "importlib" in name or "/tests/" in name:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._point(frame, "entering")
        return self._inside

    def _inside(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "opcode":
            code, at = frame.f_code, frame.f_lasti
            last = self._last.get(frame)
            self._last[frame] = at
            if (
                last is not None
                and code.co_code[last] in _LOOKS_AT_SIGNALS
                and _handler(code, last) == _handler(code, at)
            ):
                self._point(frame, "in")
        elif event == "return":
            self._last.pop(frame, None)
        return self._inside

    def _point(self, frame: FrameType, how: str) -> None:
        if self.where is None and self._left == 0:
            file = frame.f_code.co_filename.rpartition("/")[2]
            self.where = f"{how} {frame.f_code.co_name} ({file}:{frame.f_lineno})"
            raise Interrupt(self.where)
        self._left -= 1
