"""Turns a real worker against its supervisor: from then on one of its replies is mutated. Travels into the worker."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from fuzz_mutations import MUTATIONS, NAMES, Dice


def hijack(caller: Any, seed: int, at: int, mutation: int) -> None:
    """Mutate the reply number `at` from here on; the answer to this very call is number 0. The seed is for the dice."""
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    honestly = outbox.write
    dice = Dice(seed)
    left = [at]

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

    outbox.write = write
    outbox.write_in_place = lambda self, view, _address, start, length: write(self, bytes(view[start : start + length]))


def pause() -> NoReturn:
    """Neither read nor write any more."""
    while True:
        signal.pause()
