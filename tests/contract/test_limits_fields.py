"""`Limits` and `EngineConfig`: each field's bounds, what is refused, and that the docstring tells."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import re

import pytest

from pdsandbox import EngineConfig, Limits

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MOST = 2**63 - 1

# name: default, low, high, whether None switches it off
FIELDS = {
    "fuel": (1_000_000_000, 1, MOST, True),
    "wall_s": (5.0, 0.001, 86_400.0, True),
    "rss_bytes": (256 * MIB, 32 * MIB, 16 * TIB, True),
    "memory_bytes": (128 * MIB, 64 * KIB, 16 * TIB, True),
    "memories": (8, 1, 100, False),
    "table_elements": (1_000_000, 1, 100_000_000, True),
    "stack_bytes": (512 * KIB, 16 * KIB, 4 * MIB, False),
    "message_bytes": (16 * MIB, 4 * KIB, GIB, False),
    "host_calls": (1_000_000, 1, MOST, True),
    "host_call_bytes": (64 * MIB, 1, MOST, True),
    "module_bytes": (32 * MIB, 8, GIB, False),
    "compile_wall_s": (30.0, 0.001, 86_400.0, True),
    "compile_rss_bytes": (GIB, 64 * MIB, 16 * TIB, True),
}
NAMES = list(FIELDS)
ROWS = [(name, *facts) for name, facts in FIELDS.items()]
NEVER = [0, -1, -(10**5000), 10**5000, 2**200, math.nan, math.inf, -math.inf, True, False, "1000", b"1000", [1], 1j]


def refused(name, value):
    """The text of the ValueError for this value."""
    with pytest.raises(ValueError, match=rf"^{name} must be ") as caught:
        Limits(**{name: value})
    return str(caught.value)


def test_the_fields_are_the_documented_ones_with_their_defaults():
    """Every limit of the contract exists, and stands at the documented default."""
    assert {field.name: field.default for field in dataclasses.fields(Limits)} == {
        name: facts[0] for name, facts in FIELDS.items()
    }


@pytest.mark.parametrize(("name", "default", "low", "high", "_optional"), ROWS, ids=NAMES)
def test_both_bounds_pass(name, default, low, high, _optional):
    """Just inside is kept as given."""
    for value in (low, default, high):
        assert getattr(Limits(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "_default", "low", "high", "_optional"), ROWS, ids=NAMES)
def test_just_outside_fails_and_says_the_bounds(name, _default, low, high, _optional):
    """Just outside is a ValueError that names the field and both bounds."""
    seconds = isinstance(low, float)
    for value in (low * 0.999, high * 1.001) if seconds else (low - 1, high + 1):
        text = refused(name, value)
        assert f"{low:,}" in text
        assert f"{high:,}" in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    NEVER,
    ids=lambda value: (
        f"{type(value).__name__}-{value!s:.8}"
        if not isinstance(value, int)
        else f"int-{value.bit_length()}-{value > 0}"
    ),
)
def test_what_no_limit_can_be(name, value):
    """Zero, negative, NaN, infinite, absurd and not a number at all: a ValueError of one short line."""
    text = refused(name, value)
    assert len(text) < 300
    assert "\n" not in text


@pytest.mark.parametrize(("name", "_default", "_low", "_high", "optional"), ROWS, ids=NAMES)
def test_none_switches_off_where_that_is_safe(name, _default, _low, _high, optional):
    """None is kept for a limit that can be switched off, and refused for the others."""
    if optional:
        assert getattr(Limits(**{name: None}), name) is None
    else:
        assert "None for no limit" not in refused(name, None)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_s")])
def test_counts_are_integers(name):
    """A float is no count, even a whole one; whatever has an index is one and becomes an int."""
    default = FIELDS[name][0]
    refused(name, float(default))

    class Number:
        def __index__(self):
            return default

    assert type(getattr(Limits(**{name: Number()}), name)) is int


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_s")])
def test_seconds_may_be_whole(name):
    """An int of seconds is taken, and held as a float."""
    assert type(getattr(Limits(**{name: 2}), name)) is float


@pytest.mark.parametrize("cls", [Limits, EngineConfig])
def test_configuration_is_frozen_keyword_only_and_comparable(cls):
    """No field can be set, none is positional; equal configurations are equal, hash alike, pickle and copy."""
    config = cls()
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, field.default)
    with pytest.raises(TypeError):
        cls(1)
    with pytest.raises(TypeError):
        cls(no_such_field=1)
    assert config == cls()
    assert hash(config) == hash(cls())
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_explicit_tells_what_somebody_asked_for():
    """`explicit()` is the fields that differ from their defaults."""
    assert Limits().explicit() == {}
    assert Limits(fuel=7, wall_s=None).explicit() == {"fuel": 7, "wall_s": None}


def test_replacing_a_field_checks_it_again():
    """`dataclasses.replace` cannot smuggle a value past the bounds."""
    assert dataclasses.replace(Limits(), fuel=5).fuel == 5
    with pytest.raises(ValueError, match="fuel"):
        dataclasses.replace(Limits(), fuel=0)


@pytest.mark.parametrize("cls", [Limits, EngineConfig])
def test_every_field_is_described(cls):
    """The class's docstring has an entry for each field and for nothing else, in order."""
    described = re.findall(r"^(\w+): ", inspect.getdoc(cls), re.MULTILINE)
    assert described == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize("name", NAMES)
def test_a_description_says_whether_none_is_allowed(name):
    """The docstring mentions None for exactly the limits that can be switched off."""
    entries = re.split(r"^(?=\w+: )", inspect.getdoc(Limits), flags=re.MULTILINE)
    entry = next(each for each in entries if each.startswith(f"{name}: "))
    assert ("None" in entry) == FIELDS[name][3]


@pytest.mark.parametrize("name", ["fuel", "interruptible"])
def test_engine_switches_are_booleans(name):
    """True and False, nothing that merely counts as one."""
    for value in (True, False):
        assert getattr(EngineConfig(**{name: value}), name) is value
    for value in (0, 1, None, "yes"):
        with pytest.raises(ValueError, match=f"EngineConfig.{name} must be True or False"):
            EngineConfig(**{name: value})


def test_the_engine_meters_fuel_and_is_not_interruptible_by_default():
    """The documented defaults."""
    assert EngineConfig() == EngineConfig(fuel=True, interruptible=False)
