"""What the command's exit code says: one number per cause, all of them distinct. Data only.

Codes that sysexits.h has a name for carry it; what happened to a guest counts up from 80. None is 1 (a
failed demo), 2 (click's usage error) or 126 and above (the shell's), so that a script can tell them apart.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..errors import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BAD_FILE",
    "BAD_OPTION",
    "BROKEN_PIPE",
    "BUG",
    "EXIT_CODES",
    "INCOMPLETE",
    "INTERRUPTED",
    "MISMATCH",
    "NO_OUTPUT",
    "exit_code_table",
]

MISMATCH: Final = 1  # demo: a verdict was not the expected one
BAD_OPTION: Final = 2  # click's convention
BAD_FILE: Final = 66  # EX_NOINPUT
BUG: Final = 70  # EX_SOFTWARE
NO_OUTPUT: Final = 74  # EX_IOERR
INCOMPLETE: Final = 78  # EX_CONFIG; doctor: a layer of the lock-down is missing
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it (`main` has it too: it imports nothing)
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, as a shell reports it

EXIT_CODES: Final[Mapping[Cause, int]] = MappingProxyType(
    {
        Cause.USAGE: 64,  # EX_USAGE
        Cause.COMPILE: 65,  # EX_DATAERR
        Cause.LINK: 69,  # EX_UNAVAILABLE
        Cause.HOST: 71,  # EX_OSERR
        Cause.GUEST_TRAP: 80,
        Cause.GUEST_EXIT: 81,
        Cause.MEMORY: 82,
        Cause.FUEL: 83,
        Cause.WALL: 84,
        Cause.RSS: 85,
        Cause.SIGNAL: 86,
        Cause.EXIT: 87,
        Cause.PROTOCOL: 88,
        Cause.HOST_FUNCTION: 89,
        Cause.CLOSED: 90,
        Cause.CANCELLED: 91,
    }
)

_MEANINGS: Final[Mapping[Cause, str]] = MappingProxyType(
    {
        Cause.USAGE: "no such export, or arguments that do not fit its signature",
        Cause.COMPILE: "not a valid module",
        Cause.LINK: "imports, memories or tables that this command does not offer",
        Cause.HOST: "this machine failed: no process, descriptor or disk space, or no lock-down",
        Cause.GUEST_TRAP: "the guest trapped (unreachable, division by zero, stack, ...)",
        Cause.GUEST_EXIT: "the guest exited where it cannot; `run` ends with the guest's own code instead",
        Cause.MEMORY: "a pointer outside the guest's memory",
        Cause.FUEL: "fuel limit (--fuel)",
        Cause.WALL: "wall-clock limit (--wall), or compiling took too long",
        Cause.RSS: "RSS limit (--rss), or compiling took too much memory",
        Cause.SIGNAL: "the worker died by a signal",
        Cause.EXIT: "the worker exited by itself",
        Cause.PROTOCOL: "the worker broke the protocol",
        Cause.HOST_FUNCTION: "a host function failed, or was called too often",
        Cause.CLOSED: "used after close",
        Cause.CANCELLED: "the call was cancelled",
    }
)


def exit_code_table() -> list[tuple[int, str]]:
    """Every exit code with its meaning, in rising order: the table in `--help`."""
    rows = [(code, _MEANINGS[cause]) for cause, code in EXIT_CODES.items()]
    rows += [
        (0, "success; of `run`, any code may also be the guest's own"),
        (MISMATCH, "demo only: something was not as expected"),
        (BAD_OPTION, "an option or a grant that cannot be meant, or click and rich missing"),
        (BAD_FILE, "the file cannot be read"),
        (BUG, "a bug in pdsandbox"),
        (NO_OUTPUT, "standard output cannot be written"),
        (INCOMPLETE, "doctor only: a layer of the lock-down that was asked for is missing"),
        (INTERRUPTED, "interrupted (Ctrl-C)"),
        (BROKEN_PIPE, "the reader of standard output went away"),
    ]
    return sorted(rows)
