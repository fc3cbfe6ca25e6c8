"""`program`: a user's program in a process of its own, which does not outlive the test."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leaks import wait_until
from programs import PATIENCE_S, Program, script

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # worker processes need Linux; the conformance tests say so elsewhere


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """program(source, *arguments): the source as a script, running. Other options are those of `Popen`."""
    with contextlib.ExitStack() as stack:

        def start(source: str, *args: object, **options: Any) -> Program:
            return stack.enter_context(Program(script(tmp_path, source, *args), **options))

        yield start


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """wait_for(condition): poll it until it holds; the test fails after a minute."""

    def wait(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        assert wait_until(condition, seconds), f"did not come about within {seconds:g} s"

    return wait
