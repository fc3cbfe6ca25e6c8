"""Turns a real worker against its supervisor: from then on one of its replies is mutated. Travels into the worker."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FunctionType
from typing import Any, NoReturn

from fuzz_mutations import MUTATIONS, NAMES, Dice


def hijack(caller: Any, seed: int, at: int, mutation: int) -> None:
    """Mutate the reply number `at` from here on; the answer to this very call is number 0. The seed is for the dice."""
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    whole = outbox.write_rest
    dice = Dice(seed)
    left = [at]

    def honestly(self: Any, frame: bytes) -> None:
        whole(self, memoryview(frame))

    def write(self: Any, frame: bytes) -> None:
        left[0] -= 1
        if left[0] != -1:
            honestly(self, frame)
            return
        deaf = False
        for act in MUTATIONS[NAMES[mutation]](dice, bytes(frame)):
            match act[0]:
                case "write":
                    honestly(self, act[1])
                case "mute":
                    pause()
                case "deaf":
                    deaf = True
                case "close":
                    os.closerange(0, 1024)
                    pause()
                case "die" if act[1] is None:
                    os._exit(act[2])
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
        if deaf:
            pause()

    outbox.write = outbox.write_rest = lambda self, frame: write(self, bytes(frame))
    divert()


class Withheld(bytes):
    """In place of a frame that is written without asking an outbox: nothing is written, and the outbox is asked to
    write the rest, which is all of it."""

    frame: memoryview

    def __getitem__(self, _rest: Any) -> Any:
        return self.frame


def withhold(frame: memoryview) -> Withheld:
    made = Withheld()
    made.frame = frame
    return made


def divert() -> None:
    """Have results and host calls written by the outbox: on the hot path they are not."""
    gc.unfreeze()  # what was made before the fork is hidden from the collector
    server = sys.modules["pdsandbox.worker.serve"]
    ready = server._Ready
    prepare = ready.__init__

    def prepared(self: Any, *args: Any) -> None:
        prepare(self, *args)
        self.reply = withhold(self.reply)

    ready.__init__ = prepared
    for thing in gc.get_objects():
        if type(thing) is ready:
            thing.reply = withhold(thing.reply)
        elif type(thing) is FunctionType and thing.__qualname__ == "Server.bind.<locals>.ask":
            cell = (thing.__closure__ or ())[thing.__code__.co_freevars.index("frame")]
            cell.cell_contents = withhold(cell.cell_contents)


def pause() -> NoReturn:
    """Neither read nor write any more."""
    while True:
        signal.pause()
