"""The page and the chart: whole, on their own feet, and made of nothing but escaped data."""

from __future__ import annotations

import copy
import html.parser
import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the page needs matplotlib: pip install -e '.[bench]'")
pytest.importorskip("jinja2", reason="the page needs jinja2: pip install -e '.[bench]'")

VOID = {"meta", "link", "br", "img", "hr", "input"}
# Names of formats, which nobody fetches.
NAMESPACE = "http://www.w3.org/2000/svg"


class Page(html.parser.HTMLParser):
    """Elements, their attributes, and text by the nearest id above it. Tags must nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, name in reversed(self.open):
            if name is not None:
                self.texts[name] = self.texts.get(name, "") + data
                return
        self.texts[""] = self.texts.get("", "") + data


def named(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def test_the_page_has_every_row_and_every_group(harness: Any, made_up: dict[str, Any]) -> None:
    """Also the group that could not be measured, with the reason, and what makes the machine noisy."""
    page = Page(harness("page").html(made_up))
    for row in made_up["rows"]:
        text = page.texts[f"row-{row['key']}"]
        assert row["title"] in text
        assert harness("units").amount(row["value"], row["unit"]) in text
    whole = "".join(page.texts.values())
    for group in made_up["groups"].values():
        assert group["title"] in whole
        assert group["caption"] in whole
    for sentence in (*made_up["noise"], *made_up["unmeasured"].values()):
        assert sentence in whole
    for version in filter(None, made_up["versions"].values()):
        assert version in whole


def test_each_group_with_figures_has_its_chart_in_two_widths(harness: Any, made_up: dict[str, Any]) -> None:
    """One chart for each unit among its series; the one that leads the page is not drawn again."""
    charts = harness("charts")
    page = Page(harness("page").html(made_up))
    drawn = [attributes["aria-labelledby"] for tag, attributes in page.elements if tag == "svg"]
    expected = sum(len(charts.of_group(made_up, key)) for key in made_up["groups"]) + 1
    assert len(drawn) == len(set(drawn)) == 2 * expected
    assert len([name for name in drawn if name and name.startswith("hero")]) == 2


def test_the_page_needs_nothing_from_elsewhere(harness: Any, made_up: dict[str, Any]) -> None:
    """No script, no address but names of formats, no style sheet or image but its own."""
    text = harness("page").html(made_up)
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "img", "base", "form"} & {tag for tag, _ in page.elements}
    assert set(re.findall(r"[a-z]+://[^\s\"'<>)]+", text)) <= {NAMESPACE}
    assert "@import" not in text
    assert not re.search(r"url\(", text)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,"


def test_ids_are_unique_and_links_lead_somewhere(harness: Any, made_up: dict[str, Any]) -> None:
    """Many charts share one page."""
    page = Page(harness("page").html(made_up))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert targets <= {f"#{name}" for name in ids}
    for _, attributes in page.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)


def test_light_and_dark_define_every_colour_that_is_used(harness: Any, made_up: dict[str, Any]) -> None:
    """The charts name no colour of their own: one drawing serves both."""
    text = harness("page").html(made_up)
    dark = text[text.index("prefers-color-scheme: dark") :].partition("}")[0]
    light = text[: text.index("@media")]
    for name in set(re.findall(r"var\(--([a-z-]+)\)", text)):
        assert f"--{name}:" in light, name
        assert f"--{name}:" in dark, name
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawings
    assert not any(re.search(r"#[0-9a-f]{3,8}\b|rgb\(", drawing) for drawing in drawings)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_marks_stand_out_in_light_and_dark(harness: Any) -> None:
    """4.5 to 1 for text, 3 to 1 for marks."""
    svg = harness("svg")
    for colors in (svg.LIGHT, svg.DARK):
        for name in ("ink", "muted", "ours", "met", "missed"):
            assert contrast(colors[name], colors["paper"]) >= 4.5, name
        assert contrast(colors["peer"], colors["paper"]) >= 3


def test_the_chart_as_a_file_is_well_formed_and_brings_its_colours(harness: Any, made_up: dict[str, Any]) -> None:
    """XML with size, background, a title for those who do not see it, the values as text, and light and dark."""
    text = harness("page").hero(made_up)
    root = ET.fromstring(text)
    assert root.tag == f"{{{NAMESPACE}}}svg"
    assert float(root.attrib["width"]) > float(root.attrib["height"]) > 0
    style = "".join(element.text or "" for element in root.iter() if named(element) == "style")
    assert "prefers-color-scheme: dark" in style
    for name in set(re.findall(r"var\(--([a-z-]+)\)", text)):
        assert style.count(f"--{name}:") == 2, name
    texts = {element.text for element in root.iter() if named(element) == "text"}
    for key in made_up["groups"]["others"]["hero"]:
        entry = made_up["series"][key]
        assert entry["short"] in texts
        assert harness("units").amount(entry["p50"], entry["unit"]) in texts
    assert [named(child) for child in root][:2] == ["title", "desc"]
    assert not {"script", "image", "use", "foreignObject"} & {named(element) for element in root.iter()}


def test_what_is_drawn_depends_on_the_data_alone(harness: Any, made_up: dict[str, Any]) -> None:
    """The same report, also after a trip through its file, gives the same page and chart."""
    page, reading = harness("page"), harness("reading")
    again = reading.parse(json.dumps(made_up).encode())
    assert page.html(made_up) == page.html(again)
    assert page.hero(made_up) == page.hero(again)


def test_markup_in_names_stays_text(harness: Any, made_up: dict[str, Any]) -> None:
    """Whoever wrote the JSON: no element, attribute or formula comes out of its texts."""
    evil = """</title></style></svg><script>alert("1")</script>&amp;'" onload="x" $\\frac{1}{2}$ {{ 7 * 7 }} ]]>"""
    report = copy.deepcopy(made_up)
    report["noise"].append(evil)
    report["unmeasured"]["gone"] = evil
    report["machine"]["cpu"] = report["versions"]["commit"] = report["date"] = evil
    for group in report["groups"].values():
        group["title"] = group["caption"] = evil
    for entry in report["series"].values():
        entry["title"] = entry["short"] = evil
    for row in report["rows"]:
        row["title"] = evil
    tame, page = Page(harness("page").html(made_up)), Page(harness("page").html(report))
    assert "script" not in {tag for tag, _ in page.elements}
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in tame.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name == "onload"]
    assert evil in "".join(page.texts.values())
    drawn = ET.fromstring(harness("page").hero(report))
    assert {named(e) for e in drawn.iter()} <= {"svg", "title", "desc", "style", "rect", "g", "path", "text"}


@pytest.mark.parametrize(
    ("samples", "log"),
    [([[1.0], [19.0]], False), ([[1.0], [21.0]], True), ([[-1.0], [100.0]], False), ([[0.0], [100.0]], False)],
    ids=["close", "far", "negative", "zero"],
)
def test_axes_are_logarithmic_where_magnitudes_differ(
    harness: Any, build: Any, samples: list[list[float]], log: bool
) -> None:
    """More than twentyfold, and only where a logarithm exists. All of them can be drawn."""
    report = build({"a": samples[0] * 3, "b": samples[1] * 3})
    (chart,) = harness("charts").of_group(report, "group")
    assert chart.log is log
    for narrow in (False, True):
        ET.fromstring(harness("plot").draw(chart, narrow=narrow))


@pytest.mark.parametrize("unit", ["s", "bytes", "per_s", "share", "count"])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("kind", ["bars", "distribution"])
def test_any_magnitude_of_any_unit_can_be_drawn(harness: Any, build: Any, unit: str, scale: float, kind: str) -> None:
    """Also equal samples, a single one and zeros; the axis has a few labels that differ."""
    for values, narrow in (([1.0, 2.0, 3.0], False), ([0.0, 0.0], True), ([1.0, 1e5], False), ([7.0], True)):
        report = build({"a": [scale * value for value in values], "b": [scale] * 2}, unit=unit, chart=kind)
        (chart,) = harness("charts").of_group(report, "group")
        root = ET.fromstring(harness("plot").draw(chart, narrow=narrow))
        ticks = [e.text for e in root.iter() if named(e) == "text" and "middle" in e.attrib["style"]]
        assert len(ticks) == len(set(ticks)) <= 8


def test_many_samples_are_thinned_and_keep_their_extremes(harness: Any, build: Any) -> None:
    """A page stays small however long was measured."""
    report = build({"a": [float(n * 7919 % 5000) + 1 for n in range(5000)], "b": [1.0]}, chart="distribution")
    (chart,) = harness("charts").of_group(report, "group")
    dots = next(mark.dots for mark in chart.marks if len(mark.dots) > 1)
    assert len(dots) == 400
    assert (min(dots), max(dots)) == (1.0, 5000.0)


def test_rates_are_sorted_with_the_largest_first(harness: Any, build: Any) -> None:
    """The best is on top, whichever way better is."""
    for unit, first in (("per_s", "a row"), ("s", "the baseline")):
        (chart,) = harness("charts").of_group(build({"a": [9.0, 9.0], "b": [1.0, 1.0]}, unit=unit), "group")
        assert chart.marks[0].label == first
