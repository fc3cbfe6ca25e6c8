"""Which machine code this machine's processor runs, as far as the kernel tells. Knows nothing of engines."""

from __future__ import annotations

import functools
import os
from typing import Final

# One processor's record has some 3 KB; there may be hundreds of them.
_MOST: Final = 1 << 16


@functools.cache
def cpu_features() -> bytes:
    """The machine and its first processor's feature flags: equal where the same machine code may run.

    More flags are told than a code generator uses, and not all kernels tell the same ones. Just the machine where
    /proc/cpuinfo cannot be read.
    """
    machine = os.uname().machine.encode()
    record = b""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as cpuinfo:
            while b"\n\n" not in record and len(record) < _MOST and (more := cpuinfo.read(4096)):
                record += more
    except OSError:
        pass
    return b" ".join([machine, *flags_of(record)])


def flags_of(cpuinfo: bytes) -> list[bytes]:
    """The flags of the first processor, sorted. (x86 calls the line "flags", ARM "Features", RISC-V "isa".)"""
    for line in cpuinfo.partition(b"\n\n")[0].splitlines():
        name, _, value = line.partition(b":")
        if name.strip() in (b"flags", b"Features", b"isa"):
            return sorted(value.split())
    return []
