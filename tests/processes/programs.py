"""Users' programs, each run in a process of its own, and what the system says about a process and its descendants.

A program is Python source; it reports by one JSON object a line on its standard output and may wait for a word on
its standard input. Nothing here imports pdsandbox into this process: the programs do, from wherever it is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leaks import descendants

# Bounds a wait for what takes milliseconds to seconds; only a failing test waits this long.
PATIENCE_S = 60.0
HERE = Path(__file__).parent
FORK_SERVER, WORKER, COMPILER = "pdsandbox-fork", "pdsandbox-work", "pdsandbox-comp"


def package_root() -> Path:
    """The directory that makes `import pdsandbox` work: src of a checkout, or where it is installed."""
    spec = importlib.util.find_spec("pdsandbox")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def environment(*, importable: bool = True, **more: str) -> dict[str, str]:
    """This environment without what steers Python or pytest; `importable` programs find pdsandbox and `userland`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    if importable:
        env["PYTHONPATH"] = os.pathsep.join((str(package_root()), str(HERE)))
    return env | more


class Program:
    """A running program. A context manager: it is killed, and reaped, at the latest on the way out."""

    def __init__(self, command: list[str], **options: Any) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, **{"env": environment(), **pipes, **options})
        self.pid = self.process.pid
        self._rest = b""

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exc: object) -> None:
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)  # a fork server that the test has stopped could not leave
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def report(self) -> dict[str, Any]:
        """The next line that the program prints."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the program said nothing"
            data = os.read(descriptor, 65536)
            assert data, f"the program ended with {self.end()}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def word(self, text: str = "") -> None:
        """Let the program go on: it waits for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, text: str | None = None) -> tuple[int, str, str]:
        """(exit code, the rest of standard output, standard error), after the program has ended by itself."""
        out, err = self.process.communicate(None if text is None else text.encode(), timeout=PATIENCE_S)
        return self.process.returncode, (self._rest + (out or b"")).decode(), (err or b"").decode()

    def ended_well(self) -> None:
        """Exit code 0, and not a word on standard error."""
        code, _, err = self.end()
        assert (code, err) == (0, ""), f"exit code {code}, and on standard error: {err}"

    def ended_with(self, code: int) -> str:
        """That exit code; standard error."""
        found, _, err = self.end()
        assert found == code, err
        return err

    def held(self) -> Held:
        """Every descendant that it has now."""
        return Held(descendants(self.pid))


class Held:
    """Processes held by pidfds, so that their ends can be waited for whoever their parent is by then."""

    def __init__(self, pids: set[int]) -> None:
        self.names: dict[int, str] = {}
        self._pidfds: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # gone since it was listed
                self._pidfds[pid] = os.pidfd_open(pid)
                self.names[pid] = name_of(pid)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_exc: object) -> None:
        for pidfd in self._pidfds.values():
            os.close(pidfd)

    def count(self, name: str) -> int:
        """How many of them have this name."""
        return list(self.names.values()).count(name)

    def running(self) -> list[str]:
        """Names of those that have not ended."""
        return [self.names[pid] for pid, pidfd in self._pidfds.items() if not has_ended(pidfd, 0)]

    def wait_gone(self, seconds: float = PATIENCE_S) -> list[str]:
        """Until all have ended, at most `seconds`; names of those that have not."""
        deadline = time.monotonic() + seconds
        for pidfd in self._pidfds.values():
            has_ended(pidfd, max(0.0, deadline - time.monotonic()))
        return self.running()


def has_ended(pidfd: int, seconds: float) -> bool:
    """Wait for the process's end, at most `seconds`."""
    return bool(select.select([pidfd], [], [], seconds)[0])


def script(folder: Path, source: str, *args: object, options: tuple[str, ...] = ("-W", "error")) -> list[str]:
    """The command that runs this source as a script; every warning in it is an error."""
    path = folder / f"program_{len(list(folder.iterdir()))}.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return [sys.executable, *options, str(path), *map(str, args)]


def name_of(pid: int) -> str:
    """The name that ps shows; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def named(name: str, above: int | None = None) -> list[int]:
    """Pids of the descendants (of this process, or of `above`) with this name."""
    return sorted(pid for pid in descendants(above) if name_of(pid) == name)


def fork_servers(above: int | None = None) -> set[int]:
    """The running fork servers of this process, or of `above`. (Their children have that name for a moment, too.)"""
    parent = str(above or os.getpid())
    return {pid for pid in named(FORK_SERVER, above) if alive(pid) and status(pid)["PPid"] == parent}


def fork_server(above: int | None = None, *, besides: frozenset[int] = frozenset()) -> int:
    """The one that is running, besides those of other supervisors."""
    found = fork_servers(above) - besides
    assert len(found) == 1, f"{len(found)} fork servers"
    return found.pop()


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return status(pid)["State"][0] not in "ZX"
    except OSError:
        return False


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def signals(pid: int, field: str) -> set[int]:
    """The signals in one of the masks of /proc/PID/status: SigIgn, SigBlk, SigCgt."""
    mask = int(status(pid)[field], 16)
    return {number for number in range(1, signal.NSIG) if mask >> (number - 1) & 1}


def links(pid: int) -> dict[int, str]:
    """Descriptors of a process and what they refer to."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
    return found


def holds(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Which of the byte strings are anywhere in the readable memory of a process."""
    found: set[str] = set()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in _readable(pid):
            overlap = b""
            for at in range(start, end, 1 << 20):
                try:
                    memory.seek(at)
                    data = overlap + memory.read(min(1 << 20, end - at))
                except (OSError, ValueError, OverflowError):
                    break  # a page that only the kernel may touch
                found |= {name for name, needle in needles.items() if needle in data}
                overlap = data[-256:]
    return found


def _readable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions = line.split()[:2]
        if permissions.startswith("r") and "[v" not in line:
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)
