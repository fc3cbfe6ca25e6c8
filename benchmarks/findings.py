"""What a part of the soak found: figures, some with a bound, and faults in words; and its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import units
from .ledger import Ledger

if TYPE_CHECKING:
    from rich.console import Console

    from .leftovers import Count


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `most`: its bound, if it has one."""

    title: str
    value: float
    unit: str
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether it keeps to its bound; None without one."""
        return None if self.most is None else self.value <= self.most


@dataclass(slots=True)
class Findings:
    """Of one part: `title`, figures, and what was not as it should be."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, title: str, value: float, unit: str, *, most: float | None = None) -> None:
        """One figure more."""
        self.figures.append(Figure(title, value, unit, most))

    def add_calls(self, ledger: Ledger) -> None:
        """What a ledger says: its calls by how they ended, and that none was lost or doubled."""
        self.add("calls", ledger.calls, "count")
        for outcome in sorted({how for _, how in ledger.tally}):
            self.add(f"… {outcome}", ledger.ended(outcome), "count")
        self.add("calls without an end", ledger.running, "count", most=0)
        self.add("executions after the call's end", ledger.strays, "count", most=0)
        self.faults += ledger.faults
        if ledger.more_faults:
            self.faults.append(f"… and {ledger.more_faults:,} more such")

    def add_growth(self, before: Count, after: Count, most: int) -> None:
        """What came on top, in memory (at most `most` bytes), and in anything else."""
        for name, then, now in (
            ("service: resident", before.service[0], after.service[0]),
            ("service: proportional", before.service[1], after.service[1]),
            ("fork server: resident", before.server[0], after.server[0]),
        ):
            self.add(f"{name} memory, growth", now - then, "bytes", most=most)
        self.faults += after.against(before)

    @property
    def failed(self) -> bool:
        """Whether anything is not as it should be."""
        return bool(self.faults) or any(figure.met is False for figure in self.figures)

    def as_json(self) -> Mapping[str, Any]:
        """The same as data."""
        figures = [{"title": f.title, "value": f.value, "unit": f.unit, "most": f.most} for f in self.figures]
        return {"title": self.title, "figures": figures, "faults": self.faults}


def show(found: Findings, console: Console) -> None:
    """Print one part: a table, and its faults below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=48)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(Text(found.title, style="bold"))
    for figure in found.figures:
        bound = Text("")
        if figure.most is not None:
            mark, style = ("✓", "green") if figure.met else ("✗", "bold red")
            bound = Text(f"{mark} ≤ {units.amount(figure.most, figure.unit)}", style=style)
        table.add_row(Text(f"  {figure.title}"), units.amount(figure.value, figure.unit), bound)
    console.print(table)
    for fault in found.faults:
        console.print(Text(f"  ✗ {fault}", style="bold red"))
    console.print()
