"""Makes matplotlib's SVG fit for a page: colours become the page's own, what a page does not need goes.

The charts are drawn in stand-in colours; each becomes a CSS custom property, so one drawing serves light and dark.
Everything goes through an XML parser and out again: what comes out is well-formed whatever the names in it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

# Stand-ins, which matplotlib writes as they are here.
INK, MUTED, GRID = "#000001", "#000002", "#000003"
COLORS = {"ours": "#000004", "peer": "#000005", "met": "#000006", "missed": "#000007"}
_PROPERTIES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {color: name for name, color in COLORS.items()}

#: The colours in light and in dark; all text has a contrast of at least 4.5 to 1 with the background (`paper`).
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2128",
    "muted": "#5b6570",
    "grid": "#e4e8ed",
    "ours": "#0a66c8",
    "peer": "#85909c",
    "met": "#1a7f37",
    "missed": "#c9252d",
}
DARK = {
    "paper": "#151a21",
    "ink": "#e8edf3",
    "muted": "#9aa5b1",
    "grid": "#2b333d",
    "ours": "#5aa9ff",
    "peer": "#7b8794",
    "met": "#46b95c",
    "missed": "#ff6b66",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif"

_HALO = "paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round"
_SVG = "http://www.w3.org/2000/svg"
_COLOR = re.compile("|".join(_PROPERTIES))
_DECIMALS = re.compile(r"(-?\d+\.\d{2})\d+")
_SIZE = re.compile(r"([\d.]+)px")
ET.register_namespace("", _SVG)


def properties(colors: dict[str, str]) -> str:
    """The colours as CSS declarations."""
    return " ".join(f"--{name}: {value};" for name, value in colors.items())


def inline(drawn: str, *, name: str, label: str, description: str) -> str:
    """An element for a page that defines the properties; `name` makes its ids unique there."""
    root = _cleaned(drawn)
    _describe(root, name, label, description)
    return _text(root)


def file(drawn: str, *, label: str, description: str) -> str:
    """A file of its own: it brings the colours for light and dark and, as it cannot know what it is shown on, a
    background."""
    root = _cleaned(drawn)
    _, _, width, height = root.get("viewBox", "0 0 0 0").split()
    root.set("width", width)
    root.set("height", height)
    paper = ET.Element(f"{{{_SVG}}}rect", {"width": width, "height": height, "rx": "10", "style": "fill: var(--paper)"})
    root.insert(0, paper)
    style = ET.Element(f"{{{_SVG}}}style")
    style.text = (
        f"svg {{ {properties(LIGHT)} font-family: {FONT}; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {properties(DARK)} }} }}"
    )
    root.insert(0, style)
    _describe(root, "chart", label, description)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + _text(root) + "\n"


def _text(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")


def _describe(root: ET.Element, name: str, label: str, description: str) -> None:
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    for tag, text in (("desc", description), ("title", label)):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{safe}-{tag}"})
        element.text = text
        root.insert(0, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{safe}-title {safe}-desc")


def _cleaned(drawn: str) -> ET.Element:
    root = ET.fromstring(drawn)
    for parent in list(root.iter()):
        for child in list(parent):
            # Its style sheet would hold for the whole page, and its metadata names web addresses.
            if child.tag.rpartition("}")[2] in ("metadata", "defs"):
                parent.remove(child)
    for element in root.iter():
        element.attrib.pop("id", None)  # nothing is drawn that would refer to one
        if (style := element.get("style")) is not None:
            element.set("style", _style(style))
        for name in ("d", "x", "y", "transform"):
            if name in element.attrib:
                element.set(name, _DECIMALS.sub(r"\1", element.attrib[name]).replace("\n", " ").strip())
        if element.tag == f"{{{_SVG}}}text":  # lines behind it do not cross it out
            element.set("style", f"{element.get('style', '')}; {_HALO}")
        if element.tag == f"{{{_SVG}}}g" and element.text is not None and not element.text.strip():
            element.text = None
        if element.tail is not None:
            element.tail = None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    return root


def _style(style: str) -> str:
    declarations = []
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # the page's font: of matplotlib's only size and weight
            if size := _SIZE.search(value):
                declarations.append(f"font-size: {size[1]}px")
            if re.search(r"\b(bold|700)\b", value):
                declarations.append("font-weight: 600")
        elif name == "font-weight":
            declarations.append("font-weight: 600")
        elif name != "font-family":
            declarations.append(f"{name}: {_COLOR.sub(lambda found: f'var(--{_PROPERTIES[found[0]]})', value)}")
    return "; ".join(declarations)
