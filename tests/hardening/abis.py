"""`Lockdown.prepare` on kernels with another Landlock: prints by ABI what is missing, and why. Changes its process."""

from __future__ import annotations

import json
import os

from pdsandbox.hardening import Layer
from pdsandbox.platform.lockdown import landlock
from pdsandbox.protocol.control import Role
from pdsandbox.worker.lockdown import Lockdown

WANTED = frozenset({Layer.LANDLOCK_FILES, Layer.LANDLOCK_TCP, Layer.LANDLOCK_SCOPE, Layer.NO_NEW_PRIVS})


def missing(abi: int) -> dict[str, str]:
    landlock.abi = lambda: abi
    made: list[int] = []
    landlock.ruleset = lambda version: made.append(version) or os.dup(0)
    lockdown = Lockdown(WANTED, {Role.WORKER: None, Role.COMPILER: None})
    lockdown.prepare()
    assert made == [abi]
    found = {layer: lockdown.without(Role.WORKER, layer) for layer in WANTED}
    assert found == {layer: lockdown.without(Role.COMPILER, layer) for layer in WANTED}
    return {layer.name: f"{why[0].name} {why[1]}" for layer, why in found.items() if why}


if __name__ == "__main__":
    print(json.dumps({abi: missing(abi) for abi in range(1, 9)}))
