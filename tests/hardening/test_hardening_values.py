"""`Hardening`, its names, and the report: data, and the words for it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from pdsandbox import Hardening, HardeningReport, Layer, LayerReport, State
from pdsandbox.hardening import OFF, hardening_of

FIELDS = [field.name for field in dataclasses.fields(Hardening)]
OPTIONAL = {"namespaces", "undumpable", "required"}


def row(layer: Layer, state: State = State.ACTIVE, detail: str = "seen") -> LayerReport:
    return LayerReport(layer, state, detail)


def report(workers: dict[Layer, LayerReport] | None = None, compilers: Any = None) -> HardeningReport:
    """All active, but for what is given."""
    rows = [tuple((given or {}).get(layer, row(layer)) for layer in Layer) for given in (workers, compilers)]
    return HardeningReport(Hardening(), "Linux 6.1.0, x86_64", *rows)


def test_defaults() -> None:
    """Every layer is asked for but those that a machine or a service may have reasons against."""
    value = Hardening()
    assert {name for name in FIELDS if not getattr(value, name)} == OPTIONAL


def test_equal_by_value_and_frozen() -> None:
    """Two of the same layers are equal and hash alike; none can be changed; layers are named, never counted off."""
    assert Hardening(seccomp=False) == Hardening(seccomp=False) != Hardening()
    assert hash(Hardening(seccomp=False)) == hash(Hardening(seccomp=False))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Hardening().seccomp = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        Hardening(False)  # type: ignore[misc]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, 0, 1, "yes", "off"], ids=repr)
def test_only_true_and_false(name: str, value: Any) -> None:
    """Whatever only looks like a yes or no is refused, by name."""
    with pytest.raises(TypeError, match=f"Hardening.{name} takes True or False, not "):
        Hardening(**{name: value})


@pytest.mark.parametrize("rest", [{}, {"landlock": False}, {"seccomp": False}], ids=str)
def test_what_needs_no_new_privileges(rest: dict[str, bool]) -> None:
    """Landlock and seccomp without no_new_privs are refused at once, not by the kernel later."""
    with pytest.raises(ValueError, match="need no_new_privs"):
        Hardening(no_new_privs=False, **rest)
    assert not Hardening(no_new_privs=False, landlock=False, seccomp=False).no_new_privs


def test_wants() -> None:
    """`wants` is the field of the layer; a clean start and the parent-death signal are always wanted."""
    always = {Layer.CLEAN_START, Layer.PARENT_DEATH}
    assert {layer for layer in Layer if OFF.wants(layer)} == always
    assert {layer for layer in Layer if not Hardening().wants(layer)} == {Layer.NAMESPACES, Layer.UNDUMPABLE}
    landlock = {layer for layer in Layer if not Hardening(landlock=False).wants(layer)}
    assert {layer for layer in landlock if layer.name.startswith("LANDLOCK")} == landlock - {
        Layer.NAMESPACES,
        Layer.UNDUMPABLE,
    }


def test_names() -> None:
    """None and "default" are the default, "strict" the same and required, "off" nothing; a value is itself."""
    value = Hardening(mdwe=False)
    assert hardening_of(value) is value
    assert hardening_of(None) == hardening_of("default") == Hardening()
    assert hardening_of("strict") == Hardening(required=True)
    off = hardening_of("off")
    assert off == OFF
    assert not any(dataclasses.astuple(off))


@pytest.mark.parametrize(
    ("value", "error"), [("Strict", ValueError), ("", ValueError), (1, TypeError), (b"off", TypeError)]
)
def test_no_such_name(value: Any, error: type[Exception]) -> None:
    """What is none of them is refused with the list of what there is."""
    with pytest.raises(error, match='takes "default", "strict", "off" or a Hardening, not '):
        hardening_of(value)


@pytest.mark.parametrize("layer", list(Layer), ids=lambda layer: layer.name)
def test_cost(layer: Layer) -> None:
    """Each layer's absence has a cost in words, told exactly when it is absent."""
    told = {state: row(layer, state).cost for state in State}
    assert told[State.MISSING] == told[State.OFF] != ""
    assert told[State.ACTIVE] == told[State.NOT_NEEDED] == ""


def test_complete() -> None:
    """Complete is: nothing missing, in workers or compilers; off and not needed are no lack."""
    fine = {Layer.UID: row(Layer.UID, State.NOT_NEEDED), Layer.NAMESPACES: row(Layer.NAMESPACES, State.OFF)}
    assert report(fine, fine).complete
    lacking = {Layer.SECCOMP: row(Layer.SECCOMP, State.MISSING, "none here")}
    for one in (report(lacking), report(None, lacking), report(lacking, lacking)):
        assert not one.complete
        assert [item.layer for item in one.missing] == [Layer.SECCOMP]
        assert one.lacks == ("seccomp filter: none here",)


def test_what_lacks_for_one_reason_is_one_sentence() -> None:
    """Layers that are missing for the same reason share a sentence, in the layers' order."""
    names = (Layer.LANDLOCK_SCOPE, Layer.LANDLOCK_FILES, Layer.UID)
    why = {layer: "old" if layer is not Layer.UID else "no root" for layer in names}
    found = report({layer: row(layer, State.MISSING, why[layer]) for layer in names})
    assert found.lacks == ("user id: no root", "landlock: files, landlock: scope: old")


def test_as_dict() -> None:
    """`as_dict` is JSON, names each layer in order, and holds the cost in words."""
    found = json.loads(json.dumps(report({Layer.MDWE: row(Layer.MDWE, State.MISSING, "old")}).as_dict()))
    assert found["system"] == "Linux 6.1.0, x86_64"
    assert found["complete"] is False
    assert found["hardening"] == dataclasses.asdict(Hardening())
    for who in ("workers", "compilers"):
        assert [item["layer"] for item in found[who]] == [layer.name.lower() for layer in Layer]
    last = found["workers"][-1]
    assert last == {"layer": "mdwe", "state": "missing", "detail": "old", "cost": row(Layer.MDWE, State.MISSING).cost}


def test_str() -> None:
    """As text: the verdict first, then a line for each layer in each kind of process."""
    lines = str(report()).splitlines()
    assert lines[0] == "Linux 6.1.0, x86_64: all that was asked for is active"
    assert len(lines) == 1 + 2 * len(Layer)
    lines = str(report({Layer.UID: row(Layer.UID, State.MISSING, "no root")})).splitlines()
    assert lines[0] == "Linux 6.1.0, x86_64: 1 layer asked for and missing"
    assert "worker    user id              missing     no root" in lines
