"""Turns what a host offers into raw functions for one guest: counts, limits, copies, and then calls, here or far away.

Where the user's function runs is `Callback`'s or `Remote`'s business; this module reads pointers and enforces the
limits of one call. What it raises ends the guest's call and leaves the instance usable.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ctypes import memmove, string_at
from dataclasses import dataclass
from typing import Protocol

from ..callbacks import Callback
from ..errors import CallError, Cause
from ..externs import FuncType, ImportType
from ..imports import Offer
from ..slots import SLOT_BYTES
from .guest import Guest, RawFunction

__all__ = ["HostCalls", "Remote", "RemoteOffer"]

_two_pointers = struct.Struct("<I12xI12xI12xI12x")  # pd_send: envelope, its length, payload, its length
_one_pointer = struct.Struct("<16xI12xI12x")  # pd_log: (level,) message, its length


class Remote(Protocol):
    """Runs host function number `index` elsewhere."""

    def call(self, index: int, slots: bytes, blobs: tuple[bytes, ...], nresult_bytes: int) -> bytes:
        """The result slots, `nresult_bytes` long. Whatever it raises ends the guest's call unchanged."""


@dataclass(frozen=True, slots=True)
class RemoteOffer:
    """A host function that lives elsewhere; `pd` as in `Offer`."""

    type: FuncType
    index: int
    pd: str | None = None


class HostCalls:
    """The host calls of one guest; `reset` when a call (or the instantiation) begins.

    host_calls, host_call_bytes: per call, None for no limit. message_bytes: of one host call.
    Over a limit: CallError, cause HOST_FUNCTION, with `limit` and `observed`.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        host_calls: int | None,
        host_call_bytes: int | None,
        message_bytes: int,
        remote: Remote | None = None,
    ) -> None:
        self._guest = guest
        self._max_calls = host_calls
        self._max_bytes = host_call_bytes
        self._message_bytes = message_bytes
        self._remote = remote
        self._calls_left = 0
        self._bytes_left = 0
        self.reset()

    def reset(self) -> None:
        """A new call begins. A budget that is never reached stands for no limit."""
        self._calls_left = _NEVER if self._max_calls is None else self._max_calls
        self._bytes_left = _NEVER if self._max_bytes is None else self._max_bytes

    def bind(self, _import_type: ImportType, offer: Offer | RemoteOffer) -> RawFunction:
        """The raw function for `offer`. The guest compares its type with the import's."""
        nargs = len(offer.type.params) * SLOT_BYTES
        blobs = _BLOBS[offer.pd] if offer.pd else _no_blobs
        count, guest = self._count, self._guest

        if isinstance(offer, RemoteOffer):
            remote, index, nresult = self._remote, offer.index, len(offer.type.results) * SLOT_BYTES
            if remote is None:
                raise ValueError("a remote offer, but no remote")

            def raw(address: int) -> None:
                slots = string_at(address, nargs)
                copied = blobs(self, slots)
                count(nargs)
                answer = remote.call(index, slots, copied, nresult)
                if nresult:
                    if len(answer) != nresult:  # C copies what it is told: this must never depend on a stranger
                        raise CallError("a host function's answer has the wrong size", cause=Cause.HOST_FUNCTION)
                    memmove(address, answer, nresult)

        else:
            run, in_worker = Callback(offer).run, self._remote is not None

            def raw(address: int) -> None:
                slots = string_at(address, nargs)
                copied = blobs(self, slots)
                count(nargs)
                try:
                    answer = run(guest, slots, copied)
                except KeyboardInterrupt as exc:
                    if not in_worker:
                        raise
                    # Nobody's Ctrl-C reaches a worker: the function has raised it itself.
                    raise CallError("host function raised KeyboardInterrupt", cause=Cause.HOST_FUNCTION) from exc
                if answer:
                    memmove(address, answer, len(answer))

        return RawFunction(offer.type, raw)

    def _count(self, nbytes: int) -> None:
        """Book one host call and the bytes of its slots."""
        self._calls_left -= 1
        self._bytes_left -= nbytes
        if self._calls_left < 0:
            limit = self._max_calls or 0
            raise CallError(
                f"host-call limit of {limit:,} per call exceeded",
                cause=Cause.HOST_FUNCTION,
                limit=limit,
                observed=limit + 1,
            )
        if self._bytes_left < 0:
            limit = self._max_bytes or 0
            raise CallError(
                f"host-call limit of {limit:,} bytes per call exceeded",
                cause=Cause.HOST_FUNCTION,
                limit=limit,
                observed=limit - self._bytes_left,
            )

    def _copy(self, ranges: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
        """The bytes that the guest points at: pointers first, then limits, and only then is anything copied."""
        guest = self._guest
        total = 0
        for offset, length in ranges:
            guest.memory_check(offset, length)
            total += length
        if total > self._message_bytes:
            raise CallError(
                f"a host call's message of {total:,} bytes is over the limit of {self._message_bytes:,}",
                cause=Cause.HOST_FUNCTION,
                limit=self._message_bytes,
                observed=total,
            )
        self._calls_left += 1  # `_count` below is for the bytes: the call itself is booked by the caller
        self._count(total)
        return tuple([guest.memory_read(offset, length) for offset, length in ranges])


def _no_blobs(_calls: HostCalls, _slots: bytes) -> tuple[bytes, ...]:
    return ()


def _send_blobs(calls: HostCalls, slots: bytes) -> tuple[bytes, ...]:
    envelope, envelope_len, payload, payload_len = _two_pointers.unpack(slots)
    return calls._copy(((envelope, envelope_len), (payload, payload_len)))


def _log_blobs(calls: HostCalls, slots: bytes) -> tuple[bytes, ...]:
    return calls._copy((_one_pointer.unpack(slots),))


_BLOBS: dict[str, Callable[[HostCalls, bytes], tuple[bytes, ...]]] = {
    "pd_send": _send_blobs,
    "pd_now_micros": _no_blobs,
    "pd_log": _log_blobs,
}
# More than any call can make or hand over in a lifetime.
_NEVER = 1 << 80
