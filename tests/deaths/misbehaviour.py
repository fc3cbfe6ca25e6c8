"""What a worker does that has turned against its supervisor, and at which moment. Ships itself into the worker.

`strike` misbehaves where it is called, from guest code; `arm` makes the worker do it later. Both are ordinary functions
for `in_worker`: what they use travels with them by value.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import struct
import sys
from typing import Any, NoReturn

HEADER = "<IB3x"  # payload length, kind
RESULT, MEM_DATA, MEM_DONE = 35, 39, 40  # kinds of frames
ALARM = signal.SIGUSR1

KINDS = (
    "nothing",
    "SIGKILL",
    "SIGTERM",
    "SIGABRT",
    "null dereference",
    "_exit(0)",
    "_exit(3)",
    "garbage",
    "half a frame",
    "oversized length",
    "closed pipes",
    "no longer reading",
    "memory growth",
)
MOMENTS = ("instantiating", "in a call", "in a host call", "in memory_read", "in call_many", "idle")

# `strike` where it is called; `arm` for later; `host` runs in the supervisor.
GUEST = """(module
  (import "m" "strike" (func $strike (param i32)))
  (import "m" "arm" (func $arm (param i32 i32)))
  (import "m" "host" (func $host (result i32)))
  (memory (export "memory") 64)
  (func $start (call $strike (i32.const {start})))
  (start $start)
  (func (export "strike") (param i32) (result i32) (call $strike (local.get 0)) (i32.const 42))
  (func (export "arm") (param i32 i32) (call $arm (local.get 0) (local.get 1)))
  (func (export "host") (result i32) (call $host))
  (func (export "ok") (result i32) (i32.const 42)))"""


def strike(caller: Any, kind: int) -> None:
    """Misbehave now."""
    if kind:
        misbehave(KINDS[kind], reply_pipe())


def arm(caller: Any, moment: int, kind: int) -> None:
    """Misbehave later: in place of a memory operation's reply, else whenever the signal ALARM arrives."""
    if MOMENTS[moment] != "in memory_read":
        signal.signal(ALARM, lambda *_: misbehave(KINDS[kind], reply_pipe()))
        return
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    write = outbox.write

    def armed_write(self: Any, frame: bytes) -> None:
        if frame[4] in (MEM_DATA, MEM_DONE):
            misbehave(KINDS[kind], reply_pipe(), bytes(frame))
        write(self, frame)

    outbox.write = armed_write


def reply_pipe() -> int:
    """The worker's end of the pipe that its replies go to."""
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    gc.unfreeze()  # what was made before the fork is hidden from the collector
    (found,) = (thing for thing in gc.get_objects() if type(thing) is outbox)
    return int(found.fd)


def misbehave(kind: str, replies: int, frame: bytes = struct.pack(HEADER, 24, RESULT) + bytes(24)) -> NoReturn:
    """Do it. `replies` is the reply pipe; `frame` what would have been written to it."""
    if kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    elif kind == "null dereference":
        ctypes.string_at(0)
    elif kind.startswith("_exit"):
        os._exit(int(kind[6]))
    elif kind == "garbage":
        os.write(replies, b"\xff" * 64)
    elif kind == "half a frame":
        os.write(replies, frame[: len(frame) // 2])
    elif kind == "oversized length":
        os.write(replies, struct.pack(HEADER, 0xFFFFFFFF, frame[4]))
    elif kind == "closed pipes":
        os.closerange(0, 1024)
    elif kind == "memory growth":
        grow()
    live_on()


def grow() -> None:
    """Native memory, all of it touched, until there is no more; and keep it."""
    global kept
    kept = []
    try:
        while True:
            kept.append(b"\1" * (1 << 20))
    except MemoryError:
        return


kept: list[bytes] = []


def live_on() -> NoReturn:
    """Neither read nor write nor end any more; not even by the worker's own timer, which would be a second cause."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    while True:
        signal.pause()
