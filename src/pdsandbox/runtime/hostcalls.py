"""Turns what a host offers into raw functions for one guest: counts, limits, copies, and then calls, here or far away.

Where the user's function runs is `Callback`'s or `Remote`'s business; this module reads pointers and enforces the
limits of one call. What it raises ends the guest's call and leaves the instance usable.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..callbacks import Callback
from ..errors import CallError, Cause
from ..externs import FuncType, ImportType
from ..imports import Offer
from ..slots import SLOT_BYTES
from .guest import Guest, RawFunction

__all__ = ["HostCalls", "Remote", "RemoteOffer"]

_two_pointers = struct.Struct("<I12xI12xI12xI12x")  # pd_send: envelope, its length, payload, its length
_one_pointer = struct.Struct("<16xI12xI12x")  # pd_log: (level,) message, its length


Ask = Callable[[int, tuple[bytes, ...]], None]


class Remote(Protocol):
    """Runs host functions elsewhere."""

    def bind(self, index: int, nargs: int, nresults: int, *, blobs: bool, answered: bool) -> Ask:
        """What asks for function number `index`: (address of the slots, the bytes that go along).

        `nargs` bytes of argument slots are read there; once it returns, `nresults` bytes of result slots are. Without
        `blobs`, none ever go along. If it is not `answered`, it returns before the function has run. Whatever it raises
        ends the guest's call unchanged.
        """


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
        self.calls_left = 0
        self.bytes_left = 0
        self.reset()

    def reset(self) -> None:
        """A new call begins. A budget that is never reached stands for no limit."""
        self.calls_left = _NEVER if self._max_calls is None else self._max_calls
        self.bytes_left = _NEVER if self._max_bytes is None else self._max_bytes

    def bind(self, _import_type: ImportType, offer: Offer | RemoteOffer) -> RawFunction:
        """The raw function for `offer`. The guest compares its type with the import's."""
        nargs, nresults = (len(types) * SLOT_BYTES for types in (offer.type.params, offer.type.results))
        blobs = _BLOBS[offer.pd] if offer.pd else None
        guest = self._guest
        # The slots where they lie, for the time of one host call.
        at = (ctypes.c_char * max(nargs, nresults)).from_address

        if isinstance(offer, RemoteOffer):
            if self._remote is None:
                raise ValueError("a remote offer, but no remote")
            answered, copies = offer.pd != "pd_log", blobs is not None
            ask = self._remote.bind(offer.index, nargs, nresults, blobs=copies, answered=answered)

            def raw(address: int) -> None:
                copied = () if blobs is None else blobs(self, at(address))
                self.calls_left -= 1
                self.bytes_left -= nargs
                if self.calls_left < 0 or self.bytes_left < 0:
                    self._over()
                ask(address, copied)

        else:
            run, in_worker = Callback(offer).run, self._remote is not None
            there, slots = 0, None  # the engine has them in one place, mostly

            def raw(address: int) -> None:
                nonlocal there, slots
                if address != there:
                    there, slots = address, at(address)
                copied = () if blobs is None else blobs(self, slots)
                self.calls_left -= 1
                self.bytes_left -= nargs
                if self.calls_left < 0 or self.bytes_left < 0:
                    self._over()
                try:
                    run(guest, slots, 0, copied, slots, 0)
                except KeyboardInterrupt as exc:
                    if not in_worker:
                        raise
                    # Nobody's Ctrl-C reaches a worker: the function has raised it itself.
                    raise CallError("host function raised KeyboardInterrupt", cause=Cause.HOST_FUNCTION) from exc

        return RawFunction(offer.type, raw)

    def _over(self) -> None:
        """Raise what says which limit was passed."""
        if self.calls_left < 0:
            limit, observed, unit = self._max_calls or 0, (self._max_calls or 0) + 1, ""
        else:
            limit, unit = self._max_bytes or 0, " bytes"
            observed = limit - self.bytes_left
        text = f"host-call limit of {limit:,}{unit} per call exceeded"
        raise CallError(text, cause=Cause.HOST_FUNCTION, limit=limit, observed=observed)

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
        self.bytes_left -= total
        if self.bytes_left < 0:
            self._over()
        return tuple([guest.memory_read(offset, length) for offset, length in ranges])


def _send_blobs(calls: HostCalls, slots: Any) -> tuple[bytes, ...]:
    envelope, envelope_len, payload, payload_len = _two_pointers.unpack_from(slots)
    return calls._copy(((envelope, envelope_len), (payload, payload_len)))


def _log_blobs(calls: HostCalls, slots: Any) -> tuple[bytes, ...]:
    return calls._copy((_one_pointer.unpack_from(slots),))


_BLOBS: dict[str, Callable[[HostCalls, Any], tuple[bytes, ...]] | None] = {
    "pd_send": _send_blobs,
    "pd_now_micros": None,
    "pd_log": _log_blobs,
}
# More than any call can make or hand over in a lifetime.
_NEVER = 1 << 80
