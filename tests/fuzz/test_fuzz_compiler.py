"""A fake compiler with every mutation: a module that is what was said, or one CompileError; nothing is left behind."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_effort import TIMES, Growth, naming, seeds
from fuzz_model import Model, Told, Verdict
from fuzz_mutations import NAMES, Dice
from fuzz_peer import Compiling, Peer
from fuzz_scenes import EXPORT_TYPES, IMPORT_TYPES
from fuzz_stage import Stage, check_error

from pdsandbox import Cause, CompileError, WasmError
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.metadata import METADATA_CAP

PARTS = TIMES
AT_MOST_S = 20.0
MIB = 1 << 20
CODE = bytes(range(250)) * 10
PROGRAMS = {
    "compiles": [
        m.Compiled(len(CODE), IMPORT_TYPES, EXPORT_TYPES).frame(),
        m.Artifact(CODE[:1000]).frame(),
        m.Artifact(CODE[1000:]).frame(),
    ],
    "refuses": [m.Error(m.Failure.COMPILE, text="no \x1b[2J\nway", limit=7).frame()],
}
CELLS = [
    (program, reply, mutation)
    for mutation in NAMES
    for program, frames in PROGRAMS.items()
    for reply in range(1 + len(frames))
]


class CompilerModel(Model):
    """What a compilation must give for what the peer said."""

    def compile(self, source_bytes: int) -> tuple[Any, bytes]:
        """(COMPILED, the artifact)."""
        self._take(m.SMALL_CAP, {m.READY}, (CompileError, Cause.HOST))
        self._sent += 1
        self.may_break = self._peer.early(self._at, 1)
        kind, payload = self._take(METADATA_CAP, {m.COMPILED, m.ERROR})
        if kind == m.ERROR:
            failure = self._decode(m.Error, payload).failure
            if failure == m.Failure.COMPILE:
                raise Told((CompileError, Cause.COMPILE))
            if failure == m.Failure.ENGINE:
                raise Told((CompileError, Cause.EXIT))
            self._broke()
        message = self._decode(m.Compiled, payload)
        if not 0 < message.artifact_bytes <= m.artifact_cap(source_bytes):
            self._broke()
        artifact = b""
        while len(artifact) < message.artifact_bytes:
            _, piece = self._take(m.CHUNK_BYTES, {m.ARTIFACT})
            if not piece or len(artifact) + len(piece) > message.artifact_bytes:
                self._broke()
            artifact += piece
        return message, artifact


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        made = Stage(patch)
        yield made
        made.close()


def compile_once(stage: Stage, program: str, plan: dict[int, str], seed: int) -> Any:
    """One compilation; what came of it."""
    peer = Peer(Compiling([PROGRAMS[program]]), plan, Dice(seed))
    source = b"\0asm\1\0\0\0%d" % seed
    error: WasmError | None = None
    module: Any = None
    started = time.monotonic()
    try:
        module = stage.compile(peer, source)
    except WasmError as exc:
        error = exc
    finally:
        stage.end_round()
    assert time.monotonic() - started < AT_MOST_S, "it hung"
    model = CompilerModel(peer)
    told: Verdict | None = None
    message, artifact = None, b""
    try:
        message, artifact = model.compile(len(source))
    except Told as exc:
        told = exc.verdict
    if error is not None:
        early = model.may_break and error.cause is Cause.PROTOCOL
        assert early or (told is not None and error.cause is told[1]), f"{error!r}, and the model says {told}"
        assert type(error) is CompileError
        return check_error(error).cause
    assert told is None, f"compiled, and the model says {told}"
    assert tuple(module.imports()) == message.imports
    assert tuple(module.export_types()) == message.exports
    copy = module.compiled.artifact.duplicate()
    assert os.pread(copy.fd, 2 * len(artifact), 0) == artifact
    copy.close()
    return "a module"


@pytest.mark.parametrize("part", range(PARTS))
def test_every_lie_of_a_compiler_has_its_verdict(stage: Stage, part: int) -> None:
    """What it said, whole and capped, or a CompileError with the right cause; nothing hangs, nothing grows."""
    outcomes: collections.Counter[Any] = collections.Counter()
    before = None
    for count, seed in enumerate(seeds(part, PARTS, 3 * len(CELLS))):
        program, reply, mutation = CELLS[seed % len(CELLS)]
        plan = {reply: mutation}
        with naming(seed, lambda program=program, plan=plan: f"program {program!r}, mutations {plan}"):
            outcomes[compile_once(stage, program, plan, seed)] += 1
        if count == 300:
            before = Growth()
    if before is not None:
        before.check(8 * MIB, settle=lambda: compile_once(stage, "compiles", {}, 0))
        expected = {"a module", Cause.COMPILE, Cause.PROTOCOL, Cause.WALL, Cause.HOST, Cause.SIGNAL, Cause.EXIT}
        assert set(outcomes) == expected
