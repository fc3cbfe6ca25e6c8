"""What the fuzzers have found, one lie each: replies that are well formed, legal by their kind, and cannot be true."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_mutations import Dice
from fuzz_peer import Compiling, Honest, Peer
from fuzz_scenes import BIG, CALL_ONE, LOADED, MEMORY_BYTES, ONE, RAISES, ROWS, ROWS_DONE, calls
from fuzz_stage import Stage, check_error

from pdsandbox import Cause, CompileError, InstantiationError, WasmError, WorkerCrashed
from pdsandbox.protocol import messages as m
from pdsandbox.supervisor import monitor

F = m.Failure
NOT_OF_A_CALL = (F.LINK, F.COMPILE, F.START_TRAP, F.START_HOST_FUNCTION, F.START_MEMORY, F.START_REMOTE)
READ = ("memory_read", 0, BIG)
WRITE = ("memory_write", 0, bytes(BIG))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        made = Stage(patch)
        yield made
        made.close()


def error(failure: int) -> bytes:
    return m.Error(failure, trap_code=9, text="what the guest made up").frame()


def raised(stage: Stage, program: list[bytes], operation: Any, lies: dict[int, bytes]) -> WasmError:
    """What `operation` raises when the worker's replies number so-and-so are these frames instead."""
    plan = {at: lambda _dice, _frame, lie=lie: [("write", lie)] for at, lie in lies.items()}
    peer = Peer(Honest([[LOADED], program]), plan, Dice(0))
    try:
        with pytest.raises(WasmError) as caught:
            instance = stage.instantiate([peer])
            getattr(instance, operation[0])(*operation[1:])
        return check_error(caught.value)
    finally:
        stage.end_round()


@pytest.mark.parametrize("failure", NOT_OF_A_CALL)
@pytest.mark.parametrize("operation", [CALL_ONE, ("call_many", "one", ROWS)], ids=["call", "call_many"])
def test_a_call_fails_as_calls_do(stage: Stage, operation: Any, failure: int) -> None:
    """A worker cannot make a call raise CompileError or InstantiationError: telling so breaks the protocol."""
    batch = operation[0] == "call_many"
    lies = {2: m.Results(0, 1, 2, True, bytes(32)).frame() + error(failure) if batch else error(failure)}
    found = raised(stage, [ONE], operation, lies)
    assert (type(found), found.cause) == (WorkerCrashed, Cause.PROTOCOL)


def test_a_load_fails_as_loads_do(stage: Stage) -> None:
    """Nor instantiating raise Trap; and an artifact that cannot be loaded is no CompileError there."""
    found = raised(stage, [], CALL_ONE, {1: error(F.TRAP)})
    assert (type(found), found.cause) == (WorkerCrashed, Cause.PROTOCOL)
    found = raised(stage, [], CALL_ONE, {1: error(F.COMPILE)})
    assert (type(found), found.cause) == (InstantiationError, Cause.HOST)


@pytest.mark.parametrize("failure", sorted(set(range(F.COUNT)) - {F.COMPILE, F.ENGINE}))
def test_a_compiler_fails_as_compilers_do(stage: Stage, failure: int) -> None:
    """A compiler that tells of a trap, or of fuel, breaks the protocol."""
    peer = Peer(Compiling([[error(failure)]]), {}, Dice(0))
    with pytest.raises(CompileError) as caught:
        stage.compile(peer, b"\0asm\1\0\0\0%d" % failure)
    stage.end_round()
    assert caught.value.cause is Cause.PROTOCOL


@pytest.mark.parametrize(
    ("operation", "lie"),
    [
        (CALL_ONE, ONE),
        (CALL_ONE, calls(0)),
        (("call_many", "one", ROWS), ROWS_DONE),
        (("call_many", "one", ROWS), calls(0)),
    ],
    ids=["an answer", "another host call", "all rows", "another host call in a batch"],
)
def test_a_failed_host_function_ends_the_call(stage: Stage, operation: Any, lie: bytes) -> None:
    """What a host function raised cannot be swallowed by a worker that goes on as if nothing had happened."""
    found = raised(stage, [calls(RAISES)], operation, {3: lie})
    assert (type(found), found.cause) == (WorkerCrashed, Cause.PROTOCOL)


@pytest.mark.parametrize("operation", [READ, WRITE], ids=["memory_read", "memory_write"])
def test_memory_fails_as_memory_does(stage: Stage, operation: Any) -> None:
    """An access is refused as outside the memory, for the whole range at once, or not at all."""
    for lies in ({2: error(F.TRAP)}, {3: error(F.MEMORY)}):
        found = raised(stage, [], operation, lies)
        assert (type(found), found.cause) == (WorkerCrashed, Cause.PROTOCOL)
    found = raised(stage, [], (operation[0], MEMORY_BYTES, *operation[2:]), {})
    assert found.cause is Cause.MEMORY


def test_mem_done_carries_nothing(stage: Stage) -> None:
    """MEM_DONE with a payload is none."""
    lie = m.MemDone().frame()
    found = raised(stage, [], ("memory_write", 0, b"x"), {2: b"\1" + lie[1:] + b"\0"})
    assert (type(found), found.cause) == (WorkerCrashed, Cause.PROTOCOL)


def test_a_long_traceback_is_cut_before_it_is_taken_apart() -> None:
    """A million lines do not become a million strings."""
    message = m.Error(F.HOST_FUNCTION, text="ab\n" * 1_000_000)
    tracemalloc.start()
    try:
        check_error(monitor.failure(message))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", [11, 0, 2**31 - 1, 2**31, 2**32 - 1])
def test_any_errno_can_be_told(number: int) -> None:
    """A refusal for a reason that this system does not know is a refusal."""
    found = check_error(monitor.refused(number))
    assert (type(found), found.cause) == (InstantiationError, Cause.HOST)
