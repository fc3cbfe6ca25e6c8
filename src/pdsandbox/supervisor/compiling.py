"""One compilation: a disposable process gets the source, and hands back types and an artifact, or is judged.

Nothing is parsed here. What the compiler sends is
decoded by the same closed codec as everything else, and capped; the artifact goes into a memfd piece by piece and is
sealed before anybody may use it. Every way out ends the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ..errors import Cause, CompileError, InstantiationError, WasmError, WorkerCrashed
from ..limits import Limits
from ..platform import os_
from ..protocol import messages as m
from ..protocol.codec import ProtocolError
from ..protocol.metadata import METADATA_CAP
from . import monitor
from .channel import Channel
from .handle import Handle
from .module import Artifact, Compiled


def run(
    handle: Handle, source: bytes, *, text: bool, limits: Limits, leave: Callable[[Callable[[], Any]], Any]
) -> Compiled:
    """Compile in the process of `handle`, which is ended in any case."""
    handle.turn.acquire()
    try:
        return _converse(handle, source, text=text, limits=limits, leave=leave)
    except InstantiationError as exc:
        raise CompileError(exc.message.replace("worker", "compiler"), cause=exc.cause) from exc
    except CompileError:
        raise
    except WasmError as exc:
        raise _as_compile_error(exc, limits) from exc
    finally:
        handle.condemn(monitor.closed())
        handle.release()
        handle.turn.release()


def _converse(
    handle: Handle, source: bytes, *, text: bool, limits: Limits, leave: Callable[[Callable[[], Any]], Any]
) -> Compiled:
    channel = Channel(handle)
    start = monitor.start_watch(time.monotonic())
    handle.watch = start
    channel.receive(start)
    wall_s = limits.compile_wall_s
    deadline = float("inf") if wall_s is None else time.monotonic() + wall_s
    watch = monitor.Watch(wall_s, deadline, limits.compile_rss_bytes)
    handle.watch = watch
    channel.send(m.COMPILE, m.Compile(text, source).frame(), watch)
    channel.cap = METADATA_CAP
    kind, payload = channel.receive(watch)
    try:
        message = m.decode(kind, payload)
        if isinstance(message, m.Error) and message.failure in m.Failure.OF_COMPILE:
            raise handle.starved(message) or monitor.failure(message)
        if not isinstance(message, m.Compiled):
            raise ProtocolError("a compiler answers COMPILED, or says why not")
        if not 0 < message.artifact_bytes <= m.artifact_cap(len(source)):
            raise ProtocolError(f"an artifact of {message.artifact_bytes} bytes from {len(source)} of source")
        return _receive_artifact(channel, watch, message, leave)
    except ProtocolError as exc:
        raise handle.condemn(monitor.broke_protocol(str(exc))) from exc


def _receive_artifact(
    channel: Channel, watch: monitor.Watch, message: m.Compiled, leave: Callable[[Callable[[], Any]], Any]
) -> Compiled:
    channel.cap = m.CHUNK_BYTES
    left = message.artifact_bytes
    try:
        fd = os_.memfd("pdsandbox-artifact")
    except OSError as exc:
        raise CompileError(f"no memory file for the artifact: {exc}", cause=Cause.HOST) from exc
    try:
        while left:
            _, payload = channel.receive(watch)
            if not 0 < len(payload) <= left:
                raise ProtocolError("the artifact's pieces do not add up")
            view = memoryview(payload)
            while view:
                view = view[os.write(fd, view) :]
            left -= len(payload)
        os_.seal(fd)
    except OSError as exc:
        os.close(fd)
        raise CompileError(f"the artifact could not be stored: {exc}", cause=Cause.HOST) from exc
    except BaseException:
        os.close(fd)
        raise
    return Compiled(Artifact(fd, message.artifact_bytes, leave), message.imports, message.exports)


def _as_compile_error(exc: WasmError, limits: Limits) -> CompileError:
    """A verdict on a compiler, in terms of the compile limits."""
    if exc.cause is Cause.CLOSED:
        text = "the supervisor is closed"
    elif exc.cause is Cause.WALL:
        text = f"compile_wall_s of {limits.compile_wall_s or 0:g} s exceeded"
    elif exc.cause is Cause.RSS:
        limit, seen = limits.compile_rss_bytes or 0, exc.observed or 0
        text = f"compile_rss_bytes of {limit / monitor.MIB:g} MiB exceeded ({seen / monitor.MIB:.1f} MiB observed)"
    else:
        text = exc.message.replace("worker", "compiler", 1) if isinstance(exc, WorkerCrashed) else exc.message
    return CompileError(
        text,
        cause=exc.cause,
        limit=exc.limit,
        observed=exc.observed,
        signal=exc.signal,
        exit_code=exc.exit_code,
        pid=exc.pid,
        stderr_tail=exc.stderr_tail,
    )
