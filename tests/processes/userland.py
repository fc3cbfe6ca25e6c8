"""What the programs under test share. It runs in their processes, and so imports little."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

ADD = """(module (func (export "add") (param i32 i32) (result i32)
  (i32.add (local.get 0) (local.get 1))))"""
# Says that it runs (pd_log), then never ends.
LOOP = """(module (import "env" "pd_log" (func $log (param i32 i32 i32))) (memory (export "memory") 1)
  (func (export "run") (call $log (i32.const 0) (i32.const 0) (i32.const 0)) (loop $again (br $again)))
  (func (export "ok") (result i32) (i32.const 42)))"""


def slow_source(functions: int = 30_000) -> str:
    """A module that takes seconds to compile (6 s with 30,000 functions), by their number."""
    one = '(func (export "f{0}") (param i32) (result i32) (i32.add (local.get 0) (i32.const {0})))'
    return f"(module {''.join(one.format(i) for i in range(functions))})"


def say(**facts: Any) -> None:
    """One line for the test."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def await_word() -> str:
    """The test's next line."""
    return sys.stdin.readline().strip()


def add(host: Any, a: int = 1, b: int = 2) -> int:
    """Compile, instantiate and call, with a new instance."""
    with host.instantiate(host.compile(ADD)) as instance:
        answer: int = instance.func("add")(a, b)
        return answer


def failure(action: Any) -> dict[str, str]:
    """What an action raises, as facts."""
    try:
        action()
    except Exception as exc:
        cause = getattr(exc, "cause", None)
        return {"error": type(exc).__name__, "cause": getattr(cause, "name", ""), "text": str(exc)}
    return {"error": "", "cause": "", "text": ""}
