"""How an instance of an event loop ends: what is said at once, what is waited for, and why it is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import generation
from ..errors import WasmError
from ..supervisor import monitor
from ..supervisor.turns import END_WAIT_S

if TYPE_CHECKING:
    from .instance import AsyncInstance

__all__ = ["condemn", "let_go", "wait_gone", "why_gone"]


def let_go(instance: AsyncInstance) -> bool:
    """All of `close` but waiting, from whatever loop; whether there is an end to wait for."""
    if instance._generation != generation.now:
        return False  # the parent's worker is the parent's to end
    handle, conversation = instance._handle, instance._conversation
    if handle.verdict is None:
        conversation.closed = True
        instance._instance._exports = {}  # where no call finds anything
    if conversation.place.leave():
        return condemn(instance, monitor.closed())
    handle.speak_when_idle()
    return False


def condemn(instance: AsyncInstance, verdict: WasmError) -> bool:
    """End its worker; whether there is an end to wait for."""
    handle = instance._handle
    handle.condemn(verdict)
    handle.release_when_idle()  # else who is in an operation does it on the way out
    return not handle.ended


async def wait_gone(instance: AsyncInstance) -> None:
    """Until its worker, which is condemned, has ended."""
    if not instance._handle.ended:
        await instance._port.wait_ended(END_WAIT_S)


def why_gone(instance: AsyncInstance) -> WasmError | None:
    """As `WasmInstance._why_gone`."""
    handle = instance._handle
    if instance._conversation.closed:
        return instance._instance._turns.closed_error()
    if handle.ended and handle.turn.acquire(False):
        try:
            return handle.post_mortem(time.monotonic(), 0.0)
        finally:
            handle.turn.release()
    return handle.verdict
