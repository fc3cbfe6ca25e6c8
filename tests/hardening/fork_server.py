"""Fork servers that are started by a wrapper of ours: a program that `python=` names, and that runs code of the test in
the fork server before it does its work."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

_WRAPPER = """#!{python} -IS
import os, sys
at = sys.argv.index("-c") + 1
first = "import sys; sys.path.append(sys.argv[1])\\n" + {code!r}
os.execv({python!r}, [{python!r}, *sys.argv[1:at], first + "\\n" + sys.argv[at], *sys.argv[at + 1 :]])
"""

#: `Lockdown.METHOD` raises from the end of the survey on, in one kind of process.
FAILS_LATER = """
from pdsandbox.worker import lockdown, survey
look, real = survey.survey, lockdown.Lockdown.{method}
def then_fail(plan):
    seen = look(plan)
    def fail(self, *args):
        if {role} in (None, *args[:1]):
            raise OSError(1, "landlock_restrict_self: Operation not permitted")
        return real(self, *args)
    lockdown.Lockdown.{method} = fail
    return seen
survey.survey = then_fail
"""


def wrapper(folder: Path, code: str) -> Path:
    """An executable that runs `code` in the fork server first."""
    return executable(folder, _WRAPPER.format(python=sys.executable, code=code))


def shell_wrapper(folder: Path) -> Path:
    """A shell script, as people write them, that exports a variable."""
    return executable(folder, f'#!/bin/sh\nexport PLACE=here\nexec {sys.executable} "$@"\n')


def executable(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
