"""What attempts to escape share: the scene that they are played in, and how one is written down.

Everything here is loaded in a process before it is locked down; nothing in it needs the supervisor.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from escape_numbers import NUMBERS

#: By stage: a worker with a guest in it, a worker before it has its module, a compiler.
STAGES = ("locked", "loading", "compiling")
#: The first two again, in a worker that was granted two directories.
GRANTED_STAGES = ("granted", "granted_loading")
OK = "ok"
#: It ended the process by leaving, as it meant to.
LEFT = "left"
NEEDS_ROOT = {"EPERM": "only root may", "EACCES": "only root may"}
NOT_BUILT_IN = {"ENOSYS": "not in this kernel"}
AT_FDCWD = -100


@dataclass(frozen=True)
class Scene:
    """Whom and what native code would reach for."""

    hardened: bool
    supervisor: int  # process ids
    fork_server: int
    sibling: int
    directory: str  # anybody may write there
    secret: str  # a file in it that anybody may read
    tcp: int  # ports and addresses where somebody listens
    udp: int
    unix: str
    abstract: str
    inodes: Mapping[str, int]  # of the directories that are granted: "ro" to read, "rw" to write

    def unless_hardened(self, act: Callable[[], int]) -> int:
        """What the call under test needs and the filter would refuse before it: a descriptor, say. -1 then."""
        return -1 if self.hardened else act()


@dataclass(frozen=True)
class Attempt:
    """One native act. An outcome is `ok`, an errno's name, a signal's name, `left`, or an exception's name.

    locked      the outcome at default hardening, in a worker with a guest in it
    loading     the same before it has its module, and
    compiling   in a compiler; by default all three are equal
    granted     the same as `locked` in a worker that was granted directories, and
    granted_loading     before it has its module
    freely      the outcome with hardening off, which proves that the act is one
    unproven    outcomes with hardening off that prove nothing, and why that is so: then the act is listed apart
    """

    name: str
    act: Callable[[Scene], object]
    locked: str
    loading: str = ""
    compiling: str = ""
    granted: str = ""
    granted_loading: str = ""
    freely: str = OK
    unproven: Mapping[str, str] = field(default_factory=dict)

    def at(self, stage: str) -> str:
        """The outcome at default hardening."""
        if stage == "granted_loading":
            return self.granted_loading or self.loading or self.granted or self.locked
        return getattr(self, stage) or self.locked

    def try_out(self, scene: Scene) -> str:
        """Do it, here."""
        try:
            self.act(scene)
        except OSError as exc:
            return errno.errorcode.get(exc.errno or 0, str(exc))
        except Exception as exc:
            return type(exc).__name__
        return OK


def ended(status: int) -> str:
    """The outcome of an attempt that ended its process with this wait status."""
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else LEFT


# Keeps the GIL; the calls here return at once.
libc = ctypes.PyDLL(None, use_errno=True)
_syscall = libc["syscall"]
_syscall.restype = ctypes.c_long


def call(which: str | int, *args: Any) -> int:
    """A system call by name or number; OSError when it fails. Integers are passed as C longs, bytes by address."""
    number = NUMBERS[which] if isinstance(which, str) else which
    result: int = _syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def calling(name: str, *args: Any) -> Callable[[Scene], object]:
    """An act that is one system call."""
    return lambda _scene: call(name, *args)


def in_child(act: Callable[[Scene], object]) -> Callable[[Scene], object]:
    """An act whose traces must not stay: where hardening is off, and so it succeeds, they go with a fork."""

    def attempt(scene: Scene) -> None:
        if scene.hardened:
            act(scene)
            return
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                act(scene)
            except OSError as exc:
                code = exc.errno or 255
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            raise RuntimeError(ended(status))
        if os.WEXITSTATUS(status):
            raise OSError(os.WEXITSTATUS(status), "in the child")

    return attempt
