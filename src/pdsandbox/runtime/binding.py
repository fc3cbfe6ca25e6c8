"""Answers a module's imports in this process: by the user's functions first, then by WASI if it is granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InstantiationError
from ..externs import ImportType
from ..imports import InWorker, Offer, WasmImports
from ..missing import missing_import
from .guest import Bind, Guest, RawFunction
from .hostcalls import HostCalls

if TYPE_CHECKING:
    from .wasi.system import System

__all__ = ["answer_wasi", "binder"]


def binder(imports: WasmImports, hosts: HostCalls, system: System | None) -> Bind:
    """For `Guest.instantiate`; it raises what `answer_wasi` does."""

    def bind(wanted: ImportType, _guest: Guest) -> RawFunction | None:
        offer = imports.offer(wanted.module, wanted.name)
        if offer is not None:
            return hosts.bind(wanted, _shipped(offer))
        return answer_wasi(wanted, system)

    return bind


def answer_wasi(wanted: ImportType, system: System | None) -> RawFunction | None:
    """What answers an import that the user does not, if it is of WASI's and granted; None for one that is none of
    WASI's. InstantiationError, saying what would help, for one that is not answered."""
    found = None if system is None else system.bind(wanted)
    if found is None and (why := missing_import(wanted.module, wanted.name, granted=system is not None)):
        raise InstantiationError(why)
    return found


def _shipped(offer: Offer) -> Offer:
    """The offer with its own copy of an `in_worker` function, as an instance in a worker has one."""
    if not isinstance(offer.fn, InWorker):
        return offer
    import cloudpickle

    copy = cloudpickle.loads(offer.fn.pickled)  # noqa: TID251 - pickled in this very process, by in_worker
    return Offer(offer.type, copy, offer.pd)
