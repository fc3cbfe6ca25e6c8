"""The comparison of two reports in a terminal: what to know first, then what changed, then what did not."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import units
from .comparing import Change, Comparison

_STYLES = {"worse": "bold red", "better": "green", "same": "", "unjudged": "dim"}
_ORDER = ("worse", "better", "same", "unjudged")


def show(comparison: Comparison, console: Console) -> None:
    """Print it."""
    for note in comparison.notes:
        console.print(Text(note, style="yellow"))
    if comparison.notes:
        console.print()
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("what", min_width=24)
    table.add_column("against")
    table.add_column("old", justify="right", no_wrap=True)
    table.add_column("new", justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column("noise", no_wrap=True)
    table.add_column("verdict", min_width=12)
    for verdict in _ORDER:
        for change in comparison.changes:
            if change.verdict == verdict:
                table.add_row(
                    Text(change.title),
                    Text(change.baseline, style="dim"),
                    units.ratio(change.old),
                    units.ratio(change.new),
                    Text(_percent(change.change), style=_STYLES[verdict]),
                    Text("" if change.wobble is None else f"±{_percent(change.wobble).lstrip('+')}", style="dim"),
                    Text(_words(change), style=_STYLES[verdict]),
                )
    console.print(table)
    console.print()
    console.print(_closing(comparison))


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    size = abs(100 * share)
    return f"{100 * share:+.0f} %" if size >= 9.95 else f"{100 * share:+.1f} %" if size < 1000 else "> 1000 %"


def _words(change: Change) -> str:
    return f"not judged: {change.why}" if change.verdict == "unjudged" else change.verdict


def _closing(comparison: Comparison) -> Text:
    counts = {verdict: sum(c.verdict == verdict for c in comparison.changes) for verdict in _ORDER}
    said = [f"{counts[verdict]} {word}" for verdict, word in zip(_ORDER, ("worse", "better", "the same", "not judged"),
                                                                 strict=True) if counts[verdict]]  # fmt: skip
    text = f"{', '.join(said)}; changes below {100 * comparison.least:.3g} % do not count."
    return Text(text, style="bold red" if counts["worse"] else "bold")
