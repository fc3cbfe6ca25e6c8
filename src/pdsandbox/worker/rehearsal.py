"""The fork server plays a worker's first steps through before it forks any: what is written then need not be later.

The interpreter writes where it first runs code (specialised bytecode, type caches, free lists). Every page that a
fresh fork writes to is copied (some 2 us each), so the real loop runs here, over real pipes, on a module of our own.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from ..externs import FuncType
from ..platform import os_
from ..protocol import messages as m
from ..protocol.control import Config
from ..protocol.frames import FrameReader
from ..runtime.engine import Engine, Module
from . import warmup
from .loop import Worker

# Bytecode is specialised after 8 rounds at the latest (Python 3.11 and 3.12); one takes about a millisecond.
ROUNDS: Final = 8
_FUEL: Final = 1_000_000
_WALL_US: Final = 5_000_000
_OFFER: Final = m.OfferSpec("env", "pd_log", warmup.LOG_TYPE, m.Where.STUB, m.PD_NAMES.index("pd_log"), 0, b"")
_CALL: Final = m.Call(0, m.SPIN, _FUEL, _WALL_US, bytes(32)).frame()
_SCRIPT: Final = (
    m.Load(_FUEL, _WALL_US, (_OFFER,), (), (m.Resolve(FuncType(("i32", "i32"), ("i32",)), b"add"),)).frame(),
    _CALL,
    _CALL,
)
_ANSWERS: Final = [m.READY, m.LOADED, m.RESULT, m.RESULT]


def rehearse(engine: Engine, warm: Module, config: Config, artifact: bytes) -> None:
    """Some rounds of a worker's life, or one where there will be one worker only. Leaves the process as it was, but for
    its name and gc. SystemExit if one fails: then nothing is cleaned up, since the process ends."""
    memfd = os_.memfd("pdsandbox-warm")
    os.write(memfd, artifact)
    os_.seal(memfd)
    for _ in range(1 if config.brief else ROUNDS):
        _once(Worker(engine, warm, config), memfd)
    os.close(memfd)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _once(worker: Worker, memfd: int) -> None:
    requests, supervisor = os_.pipe(os.O_NONBLOCK)
    replies_read, replies = os_.pipe(os.O_NONBLOCK)
    for frame in _SCRIPT:
        os.write(supervisor, frame)
    os.close(supervisor)  # the script ends with the supervisor's end of file
    # Without a socket: nobody can interrupt it, and no thread listens.
    worker.run(requests, replies, -1, os.dup(memfd), None)
    frames, kinds = FrameReader(m.SMALL_CAP), []
    frames.feed(os.read(replies_read, 4096))
    while (found := frames.next()) is not None:
        kinds.append(found[0])
    if kinds != _ANSWERS:
        raise SystemExit(f"the rehearsal went wrong: {kinds}")
    for fd in (requests, replies_read, replies):
        os.close(fd)
    worker.close()
