"""A compiler: one module in, its artifact and types out, then gone. It parses what is hostile, and is not trusted."""

from __future__ import annotations

from ..errors import CompileError
from ..protocol import messages as m
from ..protocol import metadata
from ..protocol.control import NOT_LOCKED_DOWN, Role
from ..runtime.engine import Engine
from .faults import error_message
from .lockdown import Lockdown, enter
from .pipes import Inbox, Leave, Outbox


def run(engine: Engine, requests: int, replies: int, lockdown: Lockdown) -> int:
    """Serve one COMPILE; the process's exit code."""
    try:
        inbox, outbox = Inbox(), Outbox()
        inbox.open(requests)
        outbox.open(replies)
        if not enter(lockdown, Role.COMPILER):
            return NOT_LOCKED_DOWN
        outbox.write(m.Ready().frame())
        kind, length = inbox.complete(-1)
        if kind != m.COMPILE:
            raise SystemExit(f"unexpected message kind {kind} in a compiler")
        message = m.Compile.decode(inbox.view[8 : 8 + length])
        try:
            _compile(engine, message, outbox)
        except (CompileError, MemoryError) as exc:
            outbox.write(error_message(exc, 0).frame())
    except Leave:
        pass
    return 0


def _compile(engine: Engine, message: m.Compile, outbox: Outbox) -> None:
    module = engine.compile(message.source, text=message.text)
    imports, exports = tuple(module.imports()), tuple(module.exports())
    if len(imports) > metadata.MAX_ENTRIES or len(exports) > metadata.MAX_ENTRIES:
        raise CompileError(f"more than {metadata.MAX_ENTRIES:,} imports or exports", limit=metadata.MAX_ENTRIES)
    artifact = memoryview(module.serialize())
    most = m.artifact_cap(len(message.source))
    if len(artifact) > most:
        text = f"the compiled code takes {len(artifact):,} bytes; {most:,} are allowed for a source of this size"
        raise CompileError(text, limit=most, observed=len(artifact))
    compiled = m.Compiled(len(artifact), imports, exports).frame()
    if len(compiled) > metadata.METADATA_CAP:
        mib = metadata.METADATA_CAP >> 20
        raise CompileError(f"imports and exports take more than {mib} MiB", limit=metadata.METADATA_CAP)
    outbox.write(compiled)
    for at in range(0, len(artifact), m.CHUNK_BYTES):
        outbox.write(m.Artifact(bytes(artifact[at : at + m.CHUNK_BYTES])).frame())
