"""What the kernel's log says about a process that a filter ended. Root may read it, others where dmesg_restrict is 0.

The record is that of audit(7), type 1326 (AUDIT_SECCOMP): "audit: type=1326 audit(1700000000.123:45): … pid=123 …
arch=c000003e syscall=41 …". Where many processes are ended at once there is none for most: it tells of ten in five
seconds. Then the last record with that pid is of another process, which had it before.
"""

from __future__ import annotations

import os
import re
import select
import time
from typing import Final

from . import filters

# The kernel's stamps are from its last tick, at most 10 ms ago.
_TICK_S: Final = 0.01
# The kernel writes it from a thread of its own, some milliseconds after the process ended.
_WAIT_S: Final = 0.05
_RECORD: Final = re.compile(
    rb"audit: type=1326 audit\(([0-9.]+):\d+\): .*\bpid=(\d+)\b.*\barch=([0-9a-f]+) syscall=(\d+)\b"
)


def denied_call(pid: int, age_s: float) -> str | None:
    """Waits a moment for the record of a process that began `age_s` seconds ago; None when there is none, or none may
    be read."""
    deadline = time.monotonic() + _WAIT_S
    born = time.time() - age_s - _TICK_S  # noqa: TID251 - the record's clock
    found = None
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while time.monotonic() < deadline:
            try:
                record = _RECORD.search(os.read(fd, 8192))
            except BlockingIOError:
                if found is not None:  # the last word: pids are used again
                    break
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            except OSError:
                continue  # EPIPE: records were overwritten before they were read
            else:
                if record is not None and int(record[2]) == pid and float(record[1]) >= born:
                    found = filters.name_of(int(record[4]), int(record[3], 16))
    finally:
        os.close(fd)
    return found
