"""How the supervisor gets at a worker's memory: whether the kernel copies, and what it says when it does not."""

from __future__ import annotations

import os
from typing import Any

import pytest

WHERE = "pdsandbox.platform.os_.copy_process"


def refuse_copies(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Every copy between processes fails with this errno."""

    def refused(*_args: Any, **_options: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(WHERE, refused)


def log_copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which the size of each copy is added."""
    from pdsandbox.platform import os_

    log: list[int] = []
    copy = os_.copy_process

    def logging(pid: int, local: int, remote: int, size: int, *, write: bool = False) -> int:
        log.append(size)
        return copy(pid, local, remote, size, write=write)

    monkeypatch.setattr(WHERE, logging)
    return log
