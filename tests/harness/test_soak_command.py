"""`python -m benchmarks soak`: which parts run, with what, what is printed, and the exit status. The parts are made up;
`tests/pools/test_pool_soak.py` runs them."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def invoke(harness, monkeypatch):
    """invoke(arguments, found=…): the outcome, and the parts that ran as {name: positional arguments}."""
    testing = pytest.importorskip("click.testing", reason="needs click: pip install -e '.[bench]'")

    def run(*arguments, faults=(), value=1):
        ran = {}

        def part(name):
            def made(*args, **_options):
                ran[name] = args
                found = harness("findings").Findings(name, faults=list(faults))
                found.add("figure", value, "count", most=1)
                return found

            return made

        for name, function in (("deaths", "soak"), ("outages", "strike"), ("swaps", "turn")):
            monkeypatch.setattr(harness(name), function, part(name))
        return testing.CliRunner().invoke(harness("app").cli, ["soak", *arguments]), ran

    return run


def test_all_parts_run_and_are_printed(invoke):
    """By default ten thousand deaths."""
    done, ran = invoke()
    assert (done.exit_code, ran) == (0, {"deaths": (10_000,), "outages": (10,), "swaps": (20,)})
    assert done.output.count("figure") == done.output.count("✓ ≤ 1") == 3


def test_a_part_is_left_out(invoke):
    """By a count of 0."""
    _, ran = invoke("--deaths", "7", "--kills", "0", "--swaps", "3")
    assert ran == {"deaths": (7,), "swaps": (3,)}


@pytest.mark.parametrize(
    ("options", "shown"), [({"faults": ["a call was lost"]}, "✗ a call was lost"), ({"value": 2}, "✗ ≤ 1")]
)
def test_what_is_not_as_it_should_be_shows_in_the_exit_status(invoke, options, shown):
    """A fault, or a figure beyond its bound."""
    done, _ = invoke("--swaps", "0", **options)
    assert done.exit_code == 1
    assert shown in done.output


def test_the_figures_as_json(invoke, tmp_path):
    """All parts, with their bounds and faults."""
    file = tmp_path / "soak.json"
    invoke("--kills", "0", "--swaps", "0", "--json", str(file), faults=["so it is"])
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "kind": "pdsandbox-soak",
        "parts": [
            {
                "title": "deaths",
                "figures": [{"title": "figure", "value": 1, "unit": "count", "most": 1}],
                "faults": ["so it is"],
            }
        ],
    }
