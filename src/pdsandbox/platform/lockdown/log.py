"""What the kernel's log says about a process that a filter ended. Root may read it, others where dmesg_restrict is 0.

The record is that of audit(7), type 1326 (AUDIT_SECCOMP): "audit: type=1326 audit(…): … pid=123 … syscall=41 …".
"""

from __future__ import annotations

import os
import re
import select
import time
from typing import Final

from . import filters

# The kernel writes it from a thread of its own, some milliseconds after the process ended.
_WAIT_S: Final = 0.05
_RECORD: Final = re.compile(rb"audit: type=1326 .*\bpid=(\d+)\b.*\bsyscall=(\d+)\b")


def denied_call(pid: int) -> str | None:
    """Waits a moment for the record; None when there is none, or none may be read."""
    deadline = time.monotonic() + _WAIT_S
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
                if record is not None and int(record[1]) == pid:
                    found = filters.name_of(int(record[2]))
    finally:
        os.close(fd)
    return found
