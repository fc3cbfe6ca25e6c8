"""Draws a chart as SVG with matplotlib: text stays text, colours are left open for the page's light and dark.

Every chart is drawn for two widths, because text that shrinks with its picture cannot be read on a phone: wide with
labels beside the marks, narrow with labels above them.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from . import svg, units
from .charts import Chart, Mark

# One unit of the SVG is one pixel of the page at full width.
_DPI = 72
_RC = {
    "svg.fonttype": "none",  # text is text: it can be searched, and is crisp
    "svg.hashsalt": "pdsandbox",
    "text.parse_math": False,  # a "$" in a name is a "$"
    "path.simplify": False,  # dots are lines of no length
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than what browsers show
}
_TEXT, _SMALL = 12.0, 11.0
# Of a character in the layout's font, as a share of its size; what browsers show is narrower.
_ADVANCE = 0.57
# Between the lines of a label; lines of a chart that has one of two lines need so much more.
_PITCH, _SECOND = 14.5, 6


@dataclass(frozen=True, slots=True)
class _Shape:
    width: float
    labels: float  # of the column of labels; 0: they stand above their marks
    values: float  # the room to the right, for figures
    step: float  # from line to line
    top: float
    bottom: float = 30.0

    def height(self, lines: int) -> float:
        return self.top + lines * self.step + self.bottom


_WIDE = {
    "bars": _Shape(820, 262, 92, 30, 6),
    "distribution": _Shape(820, 262, 20, 54, 6),
    "bounds": _Shape(820, 322, 170, 24, 22),
}
_NARROW = {
    "bars": _Shape(360, 0, 78, 46, 4),
    "distribution": _Shape(360, 0, 14, 72, 4),
    "bounds": _Shape(360, 0, 14, 48, 22),
}


def draw(chart: Chart, *, narrow: bool = False) -> str:
    """The chart as an SVG element, for a page that defines the colours."""
    return svg.inline(
        _plain(chart, _shape(chart, narrow=narrow), narrow=narrow),
        name=f"{chart.key}{'-narrow' if narrow else ''}",
        label=chart.title or "chart",
        description=chart.description,
    )


def standalone(chart: Chart, title: str, footnote: str) -> str:
    """The chart as an SVG file with a title, its own colours for light and dark, and its own background."""
    shape = _shape(chart, narrow=False)
    framed = replace(shape, top=shape.top + 58, bottom=shape.bottom + 26)
    drawn = _plain(chart, framed, narrow=False, title=title, footnote=footnote)
    return svg.file(drawn, label=title, description=chart.description)


def _shape(chart: Chart, *, narrow: bool) -> _Shape:
    shape = (_NARROW if narrow else _WIDE)[chart.kind]
    if not narrow and any(len(_wrapped(mark, shape)) > 1 for mark in chart.marks):
        return replace(shape, step=shape.step + _SECOND)
    return shape


def _wrapped(mark: Mark, shape: _Shape) -> list[str]:
    """The mark's name in as many lines as there is room for, cut where there is none."""
    room = shape.labels - 18 if shape.labels else shape.width - 12
    fits = int(room / (_TEXT * _ADVANCE * (1.1 if mark.side == "ours" else 1.0)))
    most = 2 if shape.labels else 1
    return textwrap.wrap(mark.label, fits, max_lines=most, placeholder=" …", break_on_hyphens=False) or [
        mark.label[:fits]
    ]


def _plain(chart: Chart, shape: _Shape, *, narrow: bool, title: str = "", footnote: str = "") -> str:
    with mpl.rc_context(_RC), warnings.catch_warnings():
        # The layout's font lacks a character: the browser's will have it.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        height = shape.height(len(chart.marks))
        figure = Figure(figsize=(shape.width / _DPI, height / _DPI), dpi=_DPI)
        FigureCanvasSVG(figure)
        left = shape.labels or 6.0
        axes = figure.add_axes(
            (
                left / shape.width,
                shape.bottom / height,
                (shape.width - left - shape.values) / shape.width,
                (height - shape.top - shape.bottom) / height,
            )
        )
        _axis(axes, chart, narrow=narrow)
        for number, mark in enumerate(chart.marks):
            _DRAWERS[chart.kind](axes, chart, mark, number, narrow)
        if title:
            _frame(figure, shape, height, title, footnote, chart)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return out.getvalue()


def _frame(figure: Figure, shape: _Shape, height: float, title: str, footnote: str, chart: Chart) -> None:
    def put(x: float, y: float, text: str, **style: object) -> None:
        figure.text(x / shape.width, 1 - y / height, text, **style)

    put(16, 32, title, color=svg.INK, fontsize=16, fontweight="bold")
    direction = f"{chart.direction[0].upper()}{chart.direction[1:]}{'; logarithmic' if chart.log else ''}."
    marks = "The dot is the median, the band its quartiles." if chart.log else "Medians, with their quartiles."
    put(16, 52, f"{direction} {marks}", color=svg.MUTED, fontsize=_SMALL)
    put(16, height - 12, footnote, color=svg.MUTED, fontsize=_SMALL)


def _axis(axes: Axes, chart: Chart, *, narrow: bool) -> None:
    low, high = _limits(chart)
    if chart.log:
        axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(len(chart.marks) - 0.5, -0.5)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    most = 4 if narrow else 6
    ticks = _log_ticks(low, high, most, chart.unit) if chart.log else _linear_ticks(low, high, most, chart.unit)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high * (1 + 1e-9)]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, chart.unit)))
    axes.tick_params(axis="x", length=0, pad=7, labelsize=_SMALL, labelcolor=svg.MUTED)
    # At the very left there is no room to the left of a label's middle.
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        if narrow and axes.transAxes.inverted().transform(axes.transData.transform((tick, 0)))[0] < 0.08:
            label.set_ha("left")
    axes.grid(axis="x", color=svg.GRID, linewidth=1)
    axes.set_axisbelow(True)
    for gridline in axes.xaxis.get_gridlines():
        gridline.set_clip_on(False)
    if chart.kind == "bounds":
        axes.plot([1, 1], [-0.5, len(chart.marks) - 0.5], color=svg.MUTED, linewidth=1.5, clip_on=False)
        axes.annotate("the bar", (1, -0.5), (0, 6), textcoords="offset points", ha="center", va="bottom",
                      fontsize=_SMALL, color=svg.MUTED, annotation_clip=False)  # fmt: skip


def _limits(chart: Chart) -> tuple[float, float]:
    """The axis: of what is drawn, and from zero where lengths are compared."""
    figures = [figure for mark in chart.marks for figure in (mark.middle, mark.low, mark.high, *mark.dots)]
    if chart.log:
        drawn = [figure for figure in figures if figure > 0]
        # Dots on the very edge look cut off; whiskers that reach below what is shown end there.
        low = min((mark.middle for mark in chart.marks), default=1.0) if not chart.marks[0].dots else min(drawn)
        high = max(drawn)
        if chart.kind == "bounds":
            low, high = min(low, 0.5), max(high, 2.0)
        return low / 1.6, high * 1.15
    low, high = min(0.0, *figures), max(0.0, *figures)
    span = (high - low) or 1.0
    return (low - 0.03 * span if low < 0 else 0.0), high + 0.03 * span


def _log_ticks(low: float, high: float, most: int, unit: str) -> list[float]:
    """Powers of ten (of two for bytes), with 2 and 5 between them where there is room, or fewer where there is none."""
    base = 2.0 if unit == "bytes" else 10.0
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    finer: tuple[tuple[int, ...], ...] = () if unit == "bytes" else ((1, 2, 5), (1, 3))
    for steps, every in (*((steps, 1) for steps in finer), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 6)):
        # Whole multiples of `every`, so that 1 is among the ticks whatever the limits are.
        powers = range(first - first % every, last + 1, every)
        ticks = [step * base**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: len(ticks) // most + 1]


def _linear_ticks(low: float, high: float, most: int, unit: str) -> list[float]:
    """Round in the unit that is shown: 2 MiB, not 2,000,000 bytes."""
    factor, _ = units.scale(max(abs(low), abs(high)), unit)
    return [tick / factor for tick in MaxNLocator(most).tick_values(low * factor, high * factor)]


def _tick(value: float, unit: str) -> str:
    return f"{value:.6g} ×" if unit == "ratio" else units.tick(value, unit)


def _label(axes: Axes, chart: Chart, mark: Mark, number: int, narrow: bool, extra: Sequence[str] = ()) -> None:
    """The mark's name, bold if it is ours, and lines of small text."""
    shape = (_NARROW if narrow else _WIDE)[chart.kind]
    weight = "bold" if mark.side == "ours" else "normal"
    entries = [(line, _TEXT, svg.INK, weight) for line in _wrapped(mark, shape)]
    entries += [(line, _SMALL, svg.MUTED, "normal") for line in extra]
    # Beside the mark: centred on it. Above: from the upper edge of its strip.
    first = (len(entries) - 1) * _PITCH / 2 if not narrow else shape.step / 2 - 10
    for order, (text, points, color, style) in enumerate(entries):
        axes.annotate(
            text,
            (0, number),
            (-14 if not narrow else 0, first - order * _PITCH),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right" if not narrow else "left",
            va="center",
            fontsize=points,
            fontweight=style,
            color=color,
            annotation_clip=False,
        )


def _stroke(axes: Axes, xs: Sequence[float], ys: Sequence[float], color: str, width: float, alpha: float = 1.0) -> None:
    axes.plot(xs, ys, color=color, linewidth=width, alpha=alpha, solid_capstyle="round", clip_on=False)


def _value(axes: Axes, x: float, y: float, text: str, color: str, weight: str) -> None:
    axes.annotate(text, (x, y), (10, 0), textcoords="offset points", va="center", fontsize=_TEXT,
                  fontweight=weight, color=color, annotation_clip=False)  # fmt: skip


def _bars(axes: Axes, chart: Chart, mark: Mark, number: int, narrow: bool) -> None:
    _label(axes, chart, mark, number, narrow)
    y = number + (0.16 if narrow else 0.0)
    color = svg.COLORS[mark.side]
    left = axes.get_xlim()[0]
    low, high = max(mark.low, left), max(mark.high, left)
    if chart.log:
        axes.plot([left, mark.middle], [y, y], color=color, linewidth=1.5, alpha=0.35, clip_on=False)
        _stroke(axes, [low, high], [y, y], color, 6, 0.35)
        _stroke(axes, [mark.middle, mark.middle], [y, y], color, 11)
    else:
        thick = 0.26 if narrow else 0.42
        axes.barh(y, mark.middle, height=thick, color=color, alpha=0.9 if mark.side == "ours" else 0.6, linewidth=0)
        axes.patches[-1].set_clip_on(False)
        if high > low:
            _stroke(axes, [low, high], [y, y], svg.INK, 1.5, 0.7)
    _value(axes, max(high, mark.middle), y, mark.text, svg.INK, "bold" if mark.side == "ours" else "normal")


def _distribution(axes: Axes, chart: Chart, mark: Mark, number: int, narrow: bool) -> None:
    _label(axes, chart, mark, number, narrow, [mark.text])
    color = svg.COLORS[mark.side]
    centre, half = (number + 0.2, 0.2) if narrow else (number, 0.3)
    xs: list[float] = []
    ys: list[float] = []
    for order, dot in enumerate(mark.dots):
        # The golden ratio spreads any number of dots evenly over the strip.
        y = centre + half * (2 * ((order * 0.6180339887) % 1) - 1)
        xs += (dot, dot, math.nan)
        ys += (y, y, math.nan)
    _stroke(axes, xs, ys, color, 4.5, 0.65)
    _stroke(axes, [mark.middle, mark.middle], [centre - half - 0.06, centre + half + 0.06], svg.INK, 2.5)


def _bounds(axes: Axes, chart: Chart, mark: Mark, number: int, narrow: bool) -> None:
    color = svg.COLORS[mark.side]
    y = number + (0.31 if narrow else 0.0)
    _label(axes, chart, mark, number, narrow, [mark.text] if narrow else ())
    left = axes.get_xlim()[0]
    axes.plot([left, mark.middle], [y, y], color=color, linewidth=1.5, alpha=0.35, clip_on=False)
    _stroke(axes, [mark.middle, mark.middle], [y, y], color, 10)
    if not narrow:
        axes.annotate(mark.text, (1, number), (14, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                      va="center", fontsize=_TEXT, color=color, annotation_clip=False)  # fmt: skip


_DRAWERS = {"bars": _bars, "distribution": _distribution, "bounds": _bounds}
