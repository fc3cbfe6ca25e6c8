"""`pdsandbox run` at a terminal: interactive input, Ctrl-C at any time, and jobs in the background."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import wasi_programs
from shelling import write

from pdsandbox.cli import hostile

RUN = [sys.executable, "-m", "pdsandbox", "run"]
STREAMS = str(Path(__file__).parents[1] / "wasi" / "guests" / "streams.wasm")
_BOUND_S = 30.0

# Makes the terminal that is its standard input its controlling one, and becomes the command.
_FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "pdsandbox", "run", *sys.argv[1:]])
"""

# Makes the terminal that is its standard input its controlling one, starts the command in the background of that, and
# says how it went on: whether it stopped or ended.
_BACKGROUND = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.execv(sys.executable, [sys.executable, "-m", "pdsandbox", "run", *sys.argv[1:]])
_, status = os.waitpid(pid, os.WUNTRACED)
if os.WIFSTOPPED(status):
    print("stopped by", signal.Signals(os.WSTOPSIG(status)).name)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
else:
    print("ended with", os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def guest(tmp_path: Path) -> Callable[[str], str]:
    """guest("CAT"): a file with that program of `wasi_programs`."""
    return lambda name: str(write(tmp_path, f"{name.lower()}.wat", getattr(wasi_programs, name)))


class Terminal:
    """A terminal with a command in its foreground."""

    def __init__(self, *args: str) -> None:
        self.ours, theirs = pty.openpty()
        tty.setcbreak(theirs, termios.TCSANOW)  # no echo; signals by characters, as ever
        mode = termios.tcgetattr(theirs)
        mode[3] |= termios.ICANON
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        try:
            line = [sys.executable, "-c", _FOREGROUND, *args]
            self.process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        finally:
            os.close(theirs)
        self.seen = b""

    def wait_for(self, text: bytes) -> None:
        """Until it has been shown."""
        while text not in self.seen:
            try:
                piece = os.read(self.ours, 4096)
            except OSError:  # nobody has it open any more
                piece = b""
            assert piece, f"ended without {text!r}: {self.seen!r}"
            self.seen += piece

    def type(self, text: bytes) -> None:
        """At its keyboard."""
        os.write(self.ours, text)

    def rest(self) -> bytes:
        """All that was shown, when the command has ended."""
        try:
            while piece := os.read(self.ours, 4096):
                self.seen += piece
        except OSError:
            pass
        self.process.wait(_BOUND_S)
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """terminal("prog.wasm", …): `pdsandbox run` of it at a terminal."""
    made: list[Terminal] = []

    def make(*args: str) -> Terminal:
        made.append(Terminal(*args))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_prompt_comes_before_the_answer(terminal: Callable[..., Terminal], guest: Callable[[str], str]) -> None:
    """What is written without a newline is seen before anything is typed; a line that is typed arrives as it is."""
    at = terminal(guest("ASK"))
    at.wait_for(b"name? ")
    at.type(b"Ada\n")
    assert at.rest() == b"name? Ada\r\n"
    assert at.process.returncode == 0


def test_the_guest_knows_that_it_is_a_terminal(terminal: Callable[..., Terminal]) -> None:
    """Its output is a terminal where ours is; Ctrl-D ends its input."""
    at = terminal(STREAMS)
    at.wait_for(b"tty=1")
    at.type(b"hi\n\x04")
    assert b"HI\r\n" in at.rest()
    assert at.process.returncode == 0


@pytest.mark.parametrize("name", ["SPIN", "ASK"])
def test_ctrl_c(terminal: Callable[..., Terminal], guest: Callable[[str], str], name: str) -> None:
    """While the guest computes, and while it waits for input: 130, and nobody is left."""
    at = terminal(guest(name))
    at.wait_for(b"ready" if name == "SPIN" else b"name? ")
    family = psutil.Process(at.process.pid).children(recursive=True)
    assert len(family) >= 2
    at.type(b"\x03")
    assert at.rest().endswith(b"pdsandbox: interrupted\r\n")
    assert at.process.returncode == 130
    assert psutil.wait_procs(family, timeout=_BOUND_S)[1] == []


def _wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _BOUND_S
    while not holds():
        assert time.monotonic() < deadline, what
        os.sched_yield()


def _has_child(pid: int) -> bool:
    return bool(psutil.Process(pid).children())


def _compiles(pid: int) -> bool:
    """Whether a compiler has used more CPU time than it takes to become one."""
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.name() == "pdsandbox-comp" and child.cpu_times().user > 0.1:
                return True
        except psutil.NoSuchProcess:
            continue
    return False


@pytest.mark.parametrize("when", [_has_child, _compiles], ids=["starting", "compiling"])
def test_interrupted_before_the_guest_runs(tmp_path: Path, when: Callable[[int], bool]) -> None:
    """As soon as there is anything to leave behind, and while a module compiles: 130 too, and nobody is left."""
    path = write(tmp_path, "bomb.wasm", hostile.compile_bomb())
    with subprocess.Popen([*RUN, str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _wait(lambda: when(process.pid), "it gets that far")
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=_BOUND_S)
    assert (process.returncode, said) == (130, b"pdsandbox: interrupted\n")
    assert psutil.wait_procs(family, timeout=_BOUND_S)[1] == []


@pytest.mark.parametrize(
    ("name", "said"), [("NOTHING", "ended with 0"), ("TRAP", "ended with 80"), ("READ_TWO", "stopped by SIGTTIN")]
)
@pytest.mark.orphans
def test_in_the_background(guest: Callable[[str], str], name: str, said: str) -> None:
    """A job in the background is stopped when its guest reads what is typed, as any is, and for nothing else."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"typed\n")
        ended = subprocess.run(
            [sys.executable, "-c", _BACKGROUND, guest(name)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
            timeout=_BOUND_S,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert ended.stdout.splitlines()[-1] == said
