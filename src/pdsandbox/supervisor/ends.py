"""The pipes and the socket between supervisor and one child: our ends, and the child's until they are handed over.

The supervisor keeps a copy of the request pipe's read end: a write to a dead worker then never raises SIGPIPE
(which the user's program may have set back to its deadly default); death shows on the reply pipe and the pidfd.
"""

from __future__ import annotations

import os
import socket

from ..platform import os_

__all__ = ["Ends"]


class Ends:
    """Our ends of a child's pipes, and the child's ends until they are handed over."""

    def __init__(self) -> None:
        self.ours: list[int] = []  # to close
        try:
            self.requests_read, self.requests = self._keep(os_.pipe(os.O_NONBLOCK))
            self.replies, replies_write = self._keep(os_.pipe(os.O_NONBLOCK))
            self.stderr, stderr_write = self._keep(os_.pipe(os.O_NONBLOCK))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.socket, socket_child = self._keep((os_.above_std(ours.detach()), os_.above_std(theirs.detach())))
            self.child = [self.requests_read, replies_write, socket_child, stderr_write]
        except BaseException:
            self.close()
            raise

    def _keep(self, pair: tuple[int, int]) -> tuple[int, int]:
        self.ours += pair
        return pair

    def close(self) -> None:
        """Everything that is still ours."""
        while self.ours:
            os.close(self.ours.pop())

    def __del__(self) -> None:
        # Only when whoever made them was torn away before a handle had them: a handle closes them itself.
        self.close()

    def close_child(self) -> None:
        """After the hand-over: the child's ends, but for the copy of the request pipe's."""
        for fd in self.child[1:]:
            self.ours.remove(fd)
            os.close(fd)
        self.child = []

    def take_socket(self) -> int:
        """The socket, which is the caller's from now on: it carries one message, the artifact."""
        fd, self.socket = self.socket, -1
        self.ours.remove(fd)
        return fd
