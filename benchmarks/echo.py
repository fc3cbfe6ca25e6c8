"""The far end of a bare pipe: `python -I -S echo.py spin|block READ_FD WRITE_FD`. Naive on purpose: os.read, os.write.

A spinning end must not burn a core while others are measured: it blocks until a message comes, spins from there on,
and blocks again after one that starts with PAUSE. End of file ends it, either way.
"""

from __future__ import annotations

import os
import sys

# The sizes of pdsandbox's own frames for add(i32, i32) -> i32.
REQUEST_BYTES = 64
REPLY_BYTES = 32
PAUSE = b"P"


def block(requests: int, replies: int) -> None:
    """Blocking reads, all along."""
    reply = bytes(REPLY_BYTES)
    while os.read(requests, REQUEST_BYTES):
        os.write(replies, reply)


def spin(requests: int, replies: int) -> None:
    """Non-blocking reads in a loop, between the first message of a block and PAUSE."""
    reply = bytes(REPLY_BYTES)
    while True:
        os.set_blocking(requests, True)
        data = os.read(requests, REQUEST_BYTES)
        os.set_blocking(requests, False)
        while data and not data.startswith(PAUSE):
            os.write(replies, reply)
            while True:
                try:
                    data = os.read(requests, REQUEST_BYTES)
                except BlockingIOError:
                    continue
                break
        if not data:
            return
        os.write(replies, reply)


if __name__ == "__main__":
    {"spin": spin, "block": block}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
