"""A fork server's process, started: by exec, in a session of its own, with one descriptor of ours, no environment.

A command that will need exactly one has it started `ahead`, as the first thing that it does, so that the two import
what they need at the same time; this module therefore imports next to nothing.
What is said to the process, and who ends it, is `forkclient`'s.
"""

from __future__ import annotations

import os
import sys

__all__ = ["Started", "ahead", "drop", "take"]

# Isolated and without site: no environment, no user's modules, a third of the start-up time.
_FLAGS = ("-I", "-S", "-X", "utf8=1")
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from pdsandbox.forkserver.main import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Started:
    """A process and our ends: of the control socket, and of its standard error."""

    def __init__(self, python: str, pid: int, control: int, stderr: int) -> None:
        self.python, self.pid, self.control, self.stderr = python, pid, control, stderr
        self.ours = os.getpid()
        self.said: bytes | None = None  #: the first packet, where it was said already


_ahead: Started | None = None


def command(python: str, control: int) -> list[str]:
    """The command line of a fork server whose end of the socket is inherited as `control`."""
    root = os.path.realpath(__file__)
    for _ in range(3):
        root = os.path.dirname(root)
    return [python, *_FLAGS, "-c", _BOOT, root, str(control), str(os.getpid())]


def ahead() -> None:
    """Start one for the first supervisor to come, if that can be done here. Descriptors 0 to 2 must be open, and there
    may be no other thread: its end of the socket is inheritable for a moment."""
    global _ahead
    python = sys.executable
    if _ahead is not None or not python or getattr(sys, "frozen", False):
        return
    import _socket  # a third of what importing `socket` takes

    try:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        stderr, stderr_write = os.pipe()
    except OSError:  # whoever needs one asks again, and says why not
        return
    try:
        os.set_inheritable(theirs.fileno(), True)
        streams = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr_write, 2),
        ]
        line = command(python, theirs.fileno())
        pid = os.posix_spawn(python, line, {}, file_actions=streams, setsid=True)
    except (OSError, NotImplementedError):  # the same; or a C library without POSIX_SPAWN_SETSID
        ours.close()
        os.close(stderr)
        return
    finally:
        theirs.close()
        os.close(stderr_write)
    _ahead = Started(python, pid, ours.detach(), stderr)


def say(first: bytes) -> None:
    """Say the first packet to it, so that it can go on; a supervisor that would say another one starts its own."""
    found = _ahead
    if found is not None and found.said is None:
        try:
            # One packet is one write; a process that has ended is found out by whoever takes it.
            if _send(found.control, first):
                found.said = first
        except OSError:
            pass


def _send(control: int, packet: bytes) -> bool:
    import _socket

    # As `write`, which would raise SIGPIPE where that is not ignored.
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control)
    try:
        return socket.send(packet, _socket.MSG_NOSIGNAL) == len(packet)
    finally:
        socket.detach()


def is_ahead() -> bool:
    """Whether one was, and waits to be taken."""
    return _ahead is not None


def take(python: str, first: bytes) -> Started | None:
    """What was started ahead, if it runs this Python and was told this, or nothing yet; the caller's from now on."""
    global _ahead
    found = _ahead
    if found is None or found.python != python or found.ours != os.getpid() or found.said not in (None, first):
        return None
    _ahead = None
    return found


def drop() -> None:
    """End what was started ahead and nobody took."""
    global _ahead
    found, _ahead = _ahead, None
    if found is not None and found.ours == os.getpid():
        import signal  # makes enums, which takes 3 ms

        os.close(found.control)
        os.close(found.stderr)
        try:
            # At the end of file it would leave by itself, once it has imported everything.
            os.kill(found.pid, signal.SIGKILL)
            os.waitpid(found.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # SIGCHLD is ignored, and it has left
