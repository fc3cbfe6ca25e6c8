"""Fuel, durations and sizes as people write them."""

from __future__ import annotations

import pytest

from pdsandbox.cli import units
from pdsandbox.limits import GIB, MIB


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("fuel", "10M", 10_000_000),
        ("fuel", "500k", 500_000),
        ("fuel", "1.5G", 1_500_000_000),
        ("fuel", "12345", 12_345),
        ("fuel", "1_000", 1_000),
        ("wall_s", "2s", 2.0),
        ("wall_s", "250ms", 0.25),
        ("wall_s", "1m", 60.0),
        ("wall_s", "0.5", 0.5),
        ("wall_s", ".5s", 0.5),
        ("rss_bytes", "64MiB", 64 * MIB),
        ("rss_bytes", "64 mib", 64 * MIB),
        ("rss_bytes", "1GiB", GIB),
        ("rss_bytes", "500MB", 500_000_000),
        ("memory_bytes", "65536", 65536),
        ("memory_bytes", "64KiB", 65536),
        ("memory_bytes", "65536B", 65536),
        ("fuel", "none", None),
        ("wall_s", "NONE", None),
    ],
)
def test_reads(field: str, text: str, value: object) -> None:
    """Every unit in the help means what it says."""
    assert units.limit(field, text) == value


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("fuel", "lots", "'lots' is not a number of fuel units such as 500k, 10M or 1G"),
        ("fuel", "", "'' is not a number of fuel units"),
        ("fuel", "10m", "the unit 'm' is not one of k, M, G"),
        ("fuel", "0", "0 is outside 1 to 9,223,372,036,854,775,807, or none"),
        ("fuel", "9G" * 30, "is not a number"),
        ("fuel", "1e9", "'1e9' is not a number"),
        ("fuel", "1.5", "'1.5' is not a whole number of fuel units"),
        ("fuel", "nan", "'nan' is not a number"),
        ("wall_s", "2 parsecs", "the unit 'parsecs' is not one of ms, s, m"),
        ("wall_s", "0", "0 is outside 1 ms to 86,400 s, or none"),
        ("wall_s", "-1s", "-1s is outside 1 ms to 86,400 s"),
        ("wall_s", "2 days", "the unit 'days' is not one of"),
        ("wall_s", "1441m", "1441m is outside 1 ms to 86,400 s"),
        ("rss_bytes", "64M", "the unit 'M' is not one of B, KiB, MiB, GiB"),
        ("rss_bytes", "1KiB", "1KiB is outside 32 MiB to 16 TiB"),
        ("rss_bytes", "999999999999999999999GiB", "is outside 32 MiB to 16 TiB"),
        ("memory_bytes", "65536.5", "'65536.5' is not a whole number of bytes"),
        ("memories", "none", "none is outside 1 to 100"),
        ("fuel", "٣", "is not a number"),
    ],
)
def test_refuses(field: str, text: str, why: str) -> None:
    """Nonsense is refused with what would be right: the form, the units, or the bounds."""
    with pytest.raises(ValueError) as refused:
        units.limit(field, text)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.size(64 * MIB), "64 MiB"),
        (units.size(1536), "1.5 KiB"),
        (units.size(12), "12 B"),
        (units.duration(0.25), "250 ms"),
        (units.duration(2.0), "2 s"),
        (units.duration(1.234), "1.23 s"),
        (units.duration(0.0000123), "12.3 µs"),
        (units.fuel(10_000_000), "10,000,000"),
    ],
)
def test_shows(shown: str, text: str) -> None:
    """Amounts are shown the way they are written."""
    assert shown == text
