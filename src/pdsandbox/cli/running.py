"""`pdsandbox run` but for its help: what a run prints at its end, and the exit code. Needs neither click nor rich."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

from ..limits import Limits
from ..supervisor import launch
from . import options
from .output import emit, note, printable
from .standard import occupy_closed

if TYPE_CHECKING:
    from .session import Outcome

__all__ = ["main"]

# What of a guest's exit code reaches whoever waits for this process: eight bits, as of every program.
_EXIT_BITS: Final = 0xFF


def main(args: list[str]) -> int:
    """Run the command line `args`, the words after `run`; its exit code. Failure for one that cannot be meant."""
    line = options.parse(args)
    limits = Limits(**line.limits)
    if launch.is_ahead():
        from ..supervisor import configuring

        configuring.say_ahead(limits, line.values.get("--hardening", "default"))
    occupy_closed()
    from . import granted, session

    gc.enable()
    with granted.ends_with_its_reader():
        outcome = session.run(line, limits)
    _tell(outcome, line)
    if outcome.error is not None:
        from . import report

        return report.exit_code(outcome.error)
    return (outcome.exit_code or 0) & _EXIT_BITS


def _tell(outcome: Outcome, line: options.Line) -> None:
    if line.given("--json"):
        from . import document, report

        emit(report.as_json(document.of(outcome)))
    elif outcome.error is not None:
        from . import report

        for text in report.error_lines(outcome.error, outcome.file):
            note(text)
    elif outcome.results:
        from .numbers import show

        emit("\n".join(show(value) for value in outcome.results))
    if line.given("--stats"):
        from . import document

        note(printable(document.stats(outcome), 600))
