"""What a worker that stays root, for a directory of root's, could do if the filter were not there: prints the outcomes.
In a fork that takes every step of its lock-down but the filter. Must run as root, in a process of its own."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdsandbox.hardening import Hardening, Layer
from pdsandbox.platform.lockdown.calls import syscall
from pdsandbox.protocol.control import Role
from pdsandbox.worker.lockdown import Lockdown

_PTRACE, _PROCESS_VM_READV = 101, 310
_SEIZE = 0x4206
_HERE = ctypes.create_string_buffer(16)
_IOVEC = ctypes.create_string_buffer(ctypes.addressof(_HERE).to_bytes(8, "little") + (16).to_bytes(8, "little"))


def outcome(act: Callable[[], Any]) -> str:
    try:
        act()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "ok"


def attempts(parent: int, top: str, sock: socket.socket) -> dict[str, str]:
    """In the worker."""
    return {
        "user": str(os.getuid()),
        "a file in the directory": outcome(lambda: os.open(f"{top}/granted/mine", os.O_RDONLY)),
        "a file there that denies its owner": outcome(lambda: os.open(f"{top}/granted/closed", os.O_RDONLY)),
        "a file there of another user": outcome(lambda: os.open(f"{top}/granted/theirs", os.O_RDONLY)),
        "a file outside": outcome(lambda: os.open(f"{top}/secret", os.O_RDONLY)),
        "the parent's environment": outcome(lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY)),
        "its own oom score": outcome(lambda: os.open("/proc/self/oom_score_adj", os.O_WRONLY)),
        "signal": outcome(lambda: os.kill(parent, 0)),
        "trace": outcome(lambda: syscall("ptrace", _PTRACE, _SEIZE, parent, 0, 0)),
        "read memory": outcome(lambda: syscall("vm", _PROCESS_VM_READV, parent, _IOVEC, 1, _IOVEC, 1, 0)),
        "own another's file": outcome(lambda: os.chown(f"{top}/granted/theirs", 0, 0)),
        "change user": outcome(lambda: os.setresuid(1, 1, 1)),
        "a group": outcome(lambda: os.setgroups([4])),
        "chroot": outcome(lambda: os.chroot("/")),
        "run a program": outcome(lambda: os.execv("/bin/true", ["true"])),
        # These are the filter's, and why root without a filter is not to be had:
        "limits of the parent": outcome(lambda: resource.prlimit(parent, resource.RLIMIT_CORE)),
        "a socket that only root may connect to": outcome(lambda: sock.connect(f"{top}/socket")),
    }


def in_worker(made: Lockdown, top: str) -> dict[str, str]:
    """What the fork says."""
    parent = os.getpid()
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sock = socket.socket(socket.AF_UNIX)
            fd = os.open(f"{top}/granted", os.O_RDONLY | os.O_DIRECTORY)
            made.grant([(fd, True)])
            for layer, step in made.steps(Role.WORKER):
                if layer is not Layer.SECCOMP and (layer is None or made.applies(Role.WORKER, layer)):
                    step()
            with sock:
                os.write(w, json.dumps(attempts(parent, top, sock)).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    os.close(w)
    with open(r, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    made = Lockdown(frozenset(filter(Hardening().wants, Layer)), {Role.WORKER: None, Role.COMPILER: None})
    made.prepare()
    with tempfile.TemporaryDirectory() as top, socket.socket(socket.AF_UNIX) as listener:
        Path(top, "granted").mkdir(0o700)
        Path(top, "secret").touch(0o600)
        Path(top, "granted", "mine").touch(0o600)
        Path(top, "granted", "closed").touch(0)
        Path(top, "granted", "theirs").touch(0o600)
        os.chown(f"{top}/granted/theirs", 1234, 1234)
        listener.bind(f"{top}/socket")
        os.chmod(f"{top}/socket", 0o600)
        listener.listen()
        print(json.dumps(in_worker(made, top)))


if __name__ == "__main__":
    main()
