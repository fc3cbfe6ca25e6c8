"""Who runs the attempts, and the scene that they are played in: listeners, a file that anybody may read, a program."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

import pdsandbox

HERE = Path(__file__).parent
ORDINARY_USER = 12345
#: Bounds what takes a few seconds; only a failing test waits so long.
PATIENCE_S = 100.0

if sys.platform != "linux" or os.uname().machine != "x86_64":
    collect_ignore_glob = ["test_escapes_by_*.py"]  # the attempts are made by the numbers of x86_64


def _environment() -> dict[str, str]:
    packages = {Path(module.__file__).parents[1] for module in (pdsandbox, cloudpickle, psutil)}
    return {"PYTHONPATH": os.pathsep.join(map(str, (HERE, *packages))), "PYTHONWARNINGS": "error"}


def _python_for(user: int) -> str | None:
    """A Python that this user can run what is tested with: ours may lie where only we may look."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin:/bin")):
        if python is not None:
            program = [python, "-c", "import escape_table, pdsandbox, cloudpickle, psutil"]
            with contextlib.suppress(PermissionError):
                done = subprocess.run(
                    program,
                    env=_environment(),
                    user=user,
                    group=user,
                    extra_groups=[],
                    capture_output=True,
                    check=False,
                )
                if done.returncode == 0:
                    return python
    return None


@dataclass(frozen=True)
class User:
    """Whom to run as: None means as we are."""

    uid: int | None
    python: str


@pytest.fixture(scope="session", params=["root", "ordinary user"])
def user(request: pytest.FixtureRequest) -> User:
    """Both, where we are root; else the one that we are."""
    root = os.geteuid() == 0
    if request.param == "root":
        if not root:
            pytest.skip("needs root")
        return User(None, sys.executable)
    if not root:
        return User(None, sys.executable)
    python = _python_for(ORDINARY_USER)
    if python is None:
        pytest.skip(f"user {ORDINARY_USER} may not read this checkout, or no Python {sys.version_info[:2]}")
    return User(ORDINARY_USER, python)


def _granted(directory: str) -> list[str]:
    """Two directories with the same in both; what is to belong to the user. And what lies outside, beside them."""
    os.symlink("/", f"{directory}/link")
    made = [f"{directory}/victim"]
    for name in ("ro", "rw"):
        top = f"{directory}/{name}"
        os.makedirs(f"{top}/empty")
        os.symlink(f"{directory}/secret", f"{top}/out")
        made += [f"{top}/{child}" for child in ("inside", "victim", "program")]
    for file in made:
        Path(file).write_bytes(b"#!/bin/sh\nexit 0\n" + bytes(8192))
    made += [f"{directory}/{name}{child}" for name in ("ro", "rw") for child in ("", "/empty")]
    for theirs in (f"{directory}/theirs", f"{directory}/ro/theirs", f"{directory}/rw/theirs"):
        Path(theirs).touch(0)
        if os.geteuid() == 0:
            os.chown(theirs, ORDINARY_USER + 1, ORDINARY_USER + 1)
    return made


@pytest.fixture
def scene(user: User) -> Iterator[dict[str, Any]]:
    """What `Scene` needs beside process ids."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pdsandbox-escapes-"))
        secret = Path(directory, "secret")
        secret.write_text("anybody may read this")

        granted = _granted(directory)

        def listener(family: int, kind: int, address: Any) -> Any:
            sock = stack.enter_context(socket.socket(family, kind))
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            return sock.getsockname()

        path = f"{directory}/socket"
        scene = {
            "directory": directory,
            "secret": str(secret),
            "tcp": listener(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))[1],
            "udp": listener(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))[1],
            "unix": listener(socket.AF_UNIX, socket.SOCK_STREAM, path),
            "abstract": listener(socket.AF_UNIX, socket.SOCK_STREAM, "").decode(),
            "inodes": {name: os.stat(f"{directory}/{name}").st_ino for name in ("ro", "rw")},
        }
        for name in (directory, secret, path, *granted):
            os.chmod(name, 0o777)
            if user.uid is not None:
                os.chown(name, user.uid, user.uid)
        yield scene


@pytest.fixture
def play(scene: dict[str, Any], user: User) -> Callable[..., Any]:
    """play(program, **order): run it as that user, in this scene; what it reports."""

    def run(program: str, **order: Any) -> Any:
        done = subprocess.run(
            [user.python, str(HERE / f"{program}.py"), json.dumps({"scene": scene, **order})],
            env=_environment(),
            user=user.uid,
            group=user.uid,
            extra_groups=None if user.uid is None else [],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"status {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    return run
