"""The error family: exact texts, equality, default causes, data fields, pickles, trap codes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import signal

import pytest

from pdsandbox import (
    I32,
    CallError,
    Cause,
    CompileError,
    Frame,
    FuelExhausted,
    GuestExit,
    InstantiationError,
    MemoryAccessError,
    PoolFull,
    PoolTimeout,
    Quarantined,
    RssExceeded,
    Trap,
    TrapCode,
    WallClockExceeded,
    WasmError,
    WorkerCrashed,
    errors,
)
from pdsandbox.errors import TRAP_SENTENCES

TEXTS = [
    (CompileError("unknown opcode"), "WASM compile error: unknown opcode", Cause.COMPILE),
    (InstantiationError("no import env.x"), "WASM instantiation error: no import env.x", Cause.LINK),
    (CallError("no export run"), "WASM call error: no export run", Cause.USAGE),
    (Quarantined("the plugin is quarantined"), "WASM call error: the plugin is quarantined", Cause.USAGE),
    (PoolFull("the pool is full"), "WASM call error: the pool is full", Cause.USAGE),
    (PoolTimeout("no instance was free"), "WASM call error: no instance was free", Cause.USAGE),
    (MemoryAccessError(), "WASM memory access out of bounds", Cause.MEMORY),
    (MemoryAccessError("no memory is exported"), "WASM memory access out of bounds", Cause.MEMORY),
    (FuelExhausted(), "WASM fuel budget exhausted", Cause.FUEL),
    (Trap("integer overflow"), "WASM trap: integer overflow", Cause.GUEST_TRAP),
    (
        WallClockExceeded("wall-clock limit of 1 s exceeded"),
        "WASM trap: wall-clock limit of 1 s exceeded",
        Cause.WALL,
    ),
    (
        RssExceeded("RSS limit of 128 MiB exceeded (130 MiB observed)"),
        "WASM trap: RSS limit of 128 MiB exceeded (130 MiB observed)",
        Cause.RSS,
    ),
    (WorkerCrashed("worker crashed: SIGSEGV"), "WASM trap: worker crashed: SIGSEGV", Cause.SIGNAL),
    (GuestExit("guest exited with 3"), "WASM trap: guest exited with 3", Cause.GUEST_EXIT),
]
CLASSES = list(dict.fromkeys(type(error) for error, _, _ in TEXTS))
CAUSES = """
    GUEST_TRAP GUEST_EXIT MEMORY FUEL WALL RSS SIGNAL EXIT PROTOCOL HOST_FUNCTION USAGE COMPILE LINK CLOSED
    CANCELLED HOST
"""
FIELDS = {
    "cause": Cause.HOST,
    "trap_code": TrapCode.UNREACHABLE,
    "frames": (Frame(1, "inner", "module", 2, 3), Frame(0, None, None, 4, 5)),
    "signal": int(signal.SIGSEGV),
    "exit_code": 3,
    "limit": 1.5,
    "observed": 2.5,
    "pid": 4711,
    "stderr_tail": b"\xff\x00 last words",
    "row": 2,
    "results": [[I32(1)], [I32(2)]],
}
ABSENT = {name: () if name == "frames" else b"" if name == "stderr_tail" else None for name in FIELDS}


@pytest.mark.parametrize(("error", "text", "cause"), TEXTS, ids=[f"{type(e).__name__}-{t}" for e, t, _ in TEXTS])
def test_text_and_default_cause(error, text, cause):
    """`str` is exactly the table's, and each class has its own cause unless told otherwise."""
    assert str(error) == text
    assert error.cause is cause
    assert type(error)(error.message, cause=Cause.CLOSED).cause is Cause.CLOSED


def test_the_table_covers_every_class():
    """Each public error but the base is in the table above."""
    public = [getattr(errors, name) for name in errors.__all__]
    family = {each for each in public if issubclass(each, WasmError)}
    assert family - {WasmError} == set(CLASSES)


def test_causes_are_the_documented_ones():
    """`Cause` has exactly the sixteen members."""
    assert [cause.name for cause in Cause] == CAUSES.split()


def test_traps_form_one_family():
    """Everything that stops a guest is a `Trap`, but for fuel and memory; all are `WasmError`s."""
    assert all(issubclass(cls, Trap) for cls in (WallClockExceeded, RssExceeded, WorkerCrashed, GuestExit))
    assert not any(issubclass(cls, Trap) for cls in (FuelExhausted, MemoryAccessError, CallError))
    assert all(issubclass(cls, WasmError) for cls in CLASSES)
    assert issubclass(WasmError, Exception)


@pytest.mark.parametrize("cls", CLASSES)
def test_equality_and_hash_are_by_class_and_message(cls):
    """Data fields do not count; the message and the exact class do."""
    assert cls("a") == cls("a", pid=1, cause=Cause.HOST)
    assert hash(cls("a")) == hash(cls("a", pid=1, cause=Cause.HOST))
    assert cls("a") != cls("b")
    assert cls("a") != Exception("a")
    assert cls("a") != "a"
    assert all(cls("a") != other("a") for other in CLASSES if other is not cls)


def test_memory_and_fuel_errors_with_different_messages_differ():
    """Their text is fixed, their message is not."""
    assert MemoryAccessError("one") != MemoryAccessError("two")
    assert FuelExhausted("one") != FuelExhausted("two")


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_that_do_not_apply_are_none_or_empty(cls):
    """Every data field exists on every error."""
    error = cls("a")
    assert error.message == "a"
    assert {name: getattr(error, name) for name in FIELDS if name != "cause"} == {
        name: value for name, value in ABSENT.items() if name != "cause"
    }


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_field_survives_a_pickle(cls, protocol):
    """Class, message, text and all data come back unchanged."""
    error = cls("what happened", **FIELDS)
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is cls
    assert back == error
    assert (str(back), repr(back), back.args, back.message) == (str(error), repr(error), error.args, error.message)
    assert {name: getattr(back, name) for name in FIELDS} == FIELDS
    assert back.__notes__ == ["a note"]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_every_field_survives_a_copy(cls, copier):
    """Copies equal the original in every field."""
    error = cls("what happened", **FIELDS)
    back = copier(error)
    assert back is not error
    assert (type(back), str(back)) == (cls, str(error))
    assert {name: getattr(back, name) for name in FIELDS} == FIELDS


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_survive_a_pickle(cls):
    """An error with nothing but a message pickles as well."""
    back = pickle.loads(pickle.dumps(cls("a")))
    assert back == cls("a")
    assert back.cause is cls.default_cause


@pytest.mark.parametrize("cls", CLASSES)
def test_repr_names_class_message_and_cause(cls):
    """What a log shows is enough to tell which error it was."""
    assert repr(cls("a", cause=Cause.HOST)) == f"{cls.__name__}('a', cause=Cause.HOST)"


def test_every_trap_code_has_a_sentence_of_its_own():
    """One fixed sentence per code, no two alike."""
    assert set(TRAP_SENTENCES) == set(TrapCode)
    assert len(set(TRAP_SENTENCES.values())) == len(TrapCode)
    assert all(sentence and sentence.isascii() and sentence.isprintable() for sentence in TRAP_SENTENCES.values())


def test_trap_codes_are_wasmtimes():
    """Names and numbers are wasmtime's; what is left out can only happen to components."""
    wasmtime = pytest.importorskip("wasmtime")
    theirs = {code.name: code.value for code in wasmtime.TrapCode}
    ours = {code.name: code.value for code in TrapCode}
    assert ours.items() <= theirs.items()
    left_out = set(theirs) - set(ours)
    component_only = "COMPONENT ASYNC TASK STRING LIST CHAR DEBUG_ASSERT DISCRIMINANT POINTER STREAM THREAD WAITABLE"
    component_only += " BACKPRESSURE CALLBACK REFERENCE_COUNT"
    assert [name for name in left_out if not any(part in name for part in component_only.split())] == []


def test_a_frame_is_plain_frozen_data():
    """Frames compare by value, hash and cannot be changed."""
    frame = Frame(1, "f", None, 2, 3)
    assert frame == Frame(1, "f", None, 2, 3)
    assert hash(frame) == hash(Frame(1, "f", None, 2, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.func_index = 2
