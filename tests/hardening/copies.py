"""Run on a machine by `machines.py`: whether the kernel copies a guest's memory there, and whether the bytes are right
either way. Prints one JSON object."""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

from pdsandbox import Hardening, Limits, Supervisor
from pdsandbox.platform import os_

_copy = os_.copy_process
seen: set[str] = set()


def copy(*args: Any, **options: Any) -> int:
    """As it was; what became of it is noted."""
    try:
        done = _copy(*args, **options)
    except OSError as exc:
        seen.add(errno.errorcode[exc.errno])
        raise
    seen.add("copied")
    return done


def main(hardening: Hardening) -> None:
    os_.copy_process = copy
    with Supervisor(hardening=hardening, limits=Limits(wall_s=60.0), spares=0) as host:
        module = host.compile('(module (memory (export "memory") 100) (data (i32.const 7) "seven"))')
        instance = host.instantiate(module)
        data = bytes(range(256)) * 20_000
        instance.memory_write(12, data)
        right = instance.memory_read(7, 5 + len(data)) == b"seven" + data
        print(json.dumps({"seen": sorted(seen), "right": right}))


if __name__ == "__main__":
    main(eval(sys.argv[1], {"Hardening": Hardening}))
