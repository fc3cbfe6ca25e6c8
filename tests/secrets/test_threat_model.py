"""THREAT_MODEL.md names a test for each claim: they exist, and no section lacks them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODEL = TESTS.parent / "THREAT_MODEL.md"
_NAMED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")
_ROOM = re.compile(r"`(?:tests/)?(\w+)/`")
#: Sections that make claims of what holds.
CLAIMING = (
    "Boundaries",
    "What each layer stops",
    "What is held, attacker by attacker",
    "What workers share",
    "What is not locked",
    "When a layer is not to be had",
    "Known limits",
)


@pytest.fixture(scope="module")
def sections():
    """Text by heading. Skips where the package is tested without its documents."""
    if not MODEL.exists():
        pytest.skip("no THREAT_MODEL.md beside these tests")
    parts = re.split(r"^## (.+)$", MODEL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)) | {"": parts[0]}


def functions(path):
    """Names of the test functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_named_test_exists(sections):
    """File and function; and a room that is named has tests."""
    text = "".join(sections.values())
    named, missing = set(_NAMED.findall(text)), []
    for file, function in sorted(named):
        path = TESTS / file
        if not path.is_file() or (function and function not in functions(path)):
            missing.append(f"{file}::{function}")
    rooms = set(_ROOM.findall(text)) - {"tests"}
    missing += [f"{room}/" for room in sorted(rooms) if not any((TESTS / room).glob("test_*.py"))]
    assert missing == []
    assert len(named) > 40, "they were found"


@pytest.mark.parametrize("heading", CLAIMING)
def test_every_claiming_section_names_tests(sections, heading):
    """No such section without a test."""
    assert _NAMED.search(sections[heading]) or _ROOM.search(sections[heading])


@pytest.mark.parametrize("heading", ["What is held, attacker by attacker", "What workers share"])
def test_every_claim_names_its_test(sections, heading):
    """Each paragraph and each point of what is held."""
    points = re.split(r"\n(?=- |\*\*|\n)", sections[heading])
    bare = [
        point.strip()
        for point in points
        # A line that only introduces the points after it; a remark; what is expressly yours.
        if len(point.strip()) > 60 and not _NAMED.search(point) and not _ROOM.search(point) and "is yours" not in point
    ]
    assert bare == []
