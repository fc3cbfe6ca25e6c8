"""A report's file may come from anybody: what is not a report is refused with a clear message, and exit status 2."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def refuse(harness: Any) -> Callable[[Any], str]:
    """refuse(data): the message with which it is refused; a dictionary is written as JSON."""
    reading = harness("reading")

    def attempt(data: Any) -> str:
        with pytest.raises(reading.Unusable) as caught:
            reading.parse(data if isinstance(data, bytes) else json.dumps(data).encode())
        return str(caught.value)

    return attempt


def test_a_report_comes_back_as_it_was_written(harness: Any, made_up: dict[str, Any]) -> None:
    """Nothing lost, nothing added."""
    text = harness("files").to_json(made_up)
    assert harness("reading").parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"[]", 'not a report: "kind"'),
        (b"null", 'not a report: "kind"'),
        (b'{"kind": "something else"}', 'not a report: "kind"'),
        (b'{"kind": "pdsandbox-benchmarks"}', "schema 'None'"),
        (b'{"kind": "pdsandbox-benchmarks", "schema": 99}', "schema '99', but only 2 to 3"),
        (b'{"kind": "pdsandbox-benchmarks", "schema": true}', "schema 'True'"),
        (b'{"kind": "pdsandbox-benchmarks", "schema": 2}', "not what schema 2 has there"),
        (b'{"kind": "pdsandbox-benchmarks", "schema": 3}', "report.date is missing"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 10_000, "not JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
    ],
)
def test_what_is_no_report_is_refused(refuse: Any, data: bytes, message: str) -> None:
    """With what is wrong with it."""
    assert message in refuse(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("date",), 5, "report.date: not a text"),
        (("duration_s",), "long", "report.duration_s: not a number of a size"),
        (("duration_s",), True, "report.duration_s: not a number"),
        (("duration_s",), 1e300, "report.duration_s: not a number of a size that can be measured"),
        (("duration_s",), 1e-300, "report.duration_s: not a number of a size that can be measured"),
        (("duration_s",), 10**400, "report.duration_s: not a number"),
        (("quick",), 1, "report.quick: not true or false"),
        (("machine",), [], "report.machine: not an object"),
        (("machine", "cpu"), "a\x1b[31mb", "report.machine.cpu: not a text without control characters"),
        (("machine", "cpu"), "a\u202eb", "without control characters"),
        (("machine", "cpu"), "\ud800", "without control characters"),
        (("machine", "cpu"), "\ufffe", "without control characters"),
        (("machine", "cores"), -1, "report.machine.cores: not a count"),
        (("machine", "cores"), 1.5, "report.machine.cores: not a count"),
        (("versions", "python"), 3, "report.versions.python: not a text"),
        (("load", "average_before"), [1.0], "report.load.average_before: not a list of 3"),
        (("noise",), ["fine", None], "report.noise[1]: not a text"),
        (("groups", "others", "chart"), "pie", "report.groups.others.chart: not one of bars, distribution"),
        (("series", "ours.call", "unit"), "furlongs", "report.series.ours.call.unit: not one of s, bytes"),
        (("series", "ours.call", "p50"), None, "report.series.ours.call.p50: not a number"),
        (("series", "ours.call", "samples"), [], "report.series.ours.call.samples: not a list of at least 1"),
        (("series", "ours.call", "samples"), ["1"], "report.series.ours.call.samples[0]: not a number"),
        (("series", "ours.call", "n"), 3, "report.series.ours.call.n: not the number of its samples"),
        (("series", "ours.call", "group"), "elsewhere", "not a group of this report"),
        (("rows", 0, "group"), "elsewhere", "report.rows[0].group: not a group of this report"),
        (("rows", 1, "key"), "call.plain", "report.rows[1].key: not a key of its own"),
        (("rows", 0, "statistic"), "p42", "report.rows[0].statistic: not one of mean, p50"),
        (("rows", 0, "bar", "bound"), "0.3", "report.rows[0].bar.bound: not a number"),
        (("rows", 0, "met"), "yes", "report.rows[0].met: not true or false"),
        (("rows", 0, "title"), "x" * 5000, "report.rows[0].title: not a text of at most 2000 characters"),
    ],
)
def test_a_wrong_part_is_named(
    refuse: Any, made_up: dict[str, Any], path: tuple[str | int, ...], value: Any, message: str
) -> None:
    """Where it is, what should be there, what is."""
    report = copy.deepcopy(made_up)
    place: Any = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    said = refuse(report)
    assert message in said
    assert len(said) < 300
    assert said.isprintable()


def test_every_part_that_is_missing_is_missed(refuse: Any, made_up: dict[str, Any]) -> None:
    """At the top, and in each kind of object below it."""
    places: list[tuple[str | int, ...]] = [(), ("machine",), ("load",), ("bars",), ("groups", "others")]
    places += [("series", "ours.call"), ("rows", 0), ("rows", 0, "bar")]
    for path in places:
        place: Any = made_up
        for step in path:
            place = place[step]
        for name in place:
            report = copy.deepcopy(made_up)
            target: Any = report
            for step in path:
                target = target[step]
            del target[name]
            assert name in refuse(report)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_put_anywhere_it_is_refused_or_can_be_shown(
    harness: Any, made_up: dict[str, Any], data: st.DataObject
) -> None:
    """No other end than `Unusable`: what passes the reader can be compared and drawn."""
    report = copy.deepcopy(made_up)
    place: Any = report
    while True:
        step = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[step]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 3)) == 0:
            place[step] = data.draw(JSON)
            break
        place = inner
    try:
        read = harness("reading").parse(json.dumps(report).encode())
    except harness("reading").Unusable:
        return
    harness("comparing").compare(made_up, read)
    harness("page").html(read)


@pytest.fixture
def invoke(harness: Any) -> Callable[..., Any]:
    """invoke(*arguments): the finished command."""
    return lambda *arguments: CliRunner().invoke(harness("app").cli, [str(argument) for argument in arguments])


def test_commands_refuse_bad_files_with_status_two(invoke: Any, harness: Any, made_up: Any, tmp_path: Path) -> None:
    """Unreadable, not a report, or nowhere to write: before anything is written."""
    good, bad, out = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "out"
    good.write_text(harness("files").to_json(made_up), encoding="utf-8")
    bad.write_text('{"kind": "pdsandbox-benchmarks", "schema": 7}', encoding="utf-8")
    for arguments, message in (
        (("compare", good, bad), "schema '7'"),
        (("compare", bad, good), "schema '7'"),
        (("compare", good, tmp_path / "none"), "No such file or directory"),
        (("html", bad, out), "schema '7'"),
        (("chart", bad, out), "schema '7'"),
        (("html", tmp_path / "none", out), "No such file or directory"),
        (("html", good, tmp_path / "none" / "out"), "No such file or directory"),
        (("chart", good, tmp_path), "is a directory"),
        (("compare", good), "Missing argument"),
        (("compare", "-", "-"), "standard input is one report"),
    ):
        done = invoke(*arguments)
        assert (done.exit_code, message in done.output) == (2, True), done.output
        assert not out.exists()


def test_a_report_without_figures_gives_a_page_but_no_chart(
    invoke: Any, harness: Any, build: Any, tmp_path: Path
) -> None:
    """The page says why; a chart of nothing would say nothing."""
    path = tmp_path / "report.json"
    report = build({"a": [], "b": []}, unmeasured={"group": "not on this machine"})
    path.write_text(harness("files").to_json(report), encoding="utf-8")
    assert invoke("html", path, tmp_path / "out.html").exit_code == 0
    assert "not on this machine" in (tmp_path / "out.html").read_text(encoding="utf-8")
    done = invoke("chart", path, tmp_path / "out.svg")
    assert done.exit_code == 2
    assert "no figures to draw" in done.output
