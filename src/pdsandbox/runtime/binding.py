"""Answers a module's imports in this process: by the user's functions first, then by WASI if it is granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InstantiationError
from ..externs import ImportType
from ..imports import InWorker, Offer, WasmImports
from ..wasi import missing_import
from .guest import Bind, Guest, RawFunction
from .hostcalls import HostCalls

if TYPE_CHECKING:
    from .wasi.system import System

__all__ = ["binder"]


def binder(imports: WasmImports, hosts: HostCalls, system: System | None) -> Bind:
    """For `Guest.instantiate`. It raises InstantiationError for an import of WASI's that is not answered, to say what
    would help."""

    def bind(wanted: ImportType, _guest: Guest) -> RawFunction | None:
        offer = imports.offer(wanted.module, wanted.name)
        if offer is not None:
            return hosts.bind(wanted, _shipped(offer))
        found = None if system is None else system.bind(wanted)
        if found is None and (why := missing_import(wanted.module, wanted.name, granted=system is not None)):
            raise InstantiationError(why)
        return found

    return bind


def _shipped(offer: Offer) -> Offer:
    """The offer with its own copy of an `in_worker` function, as an instance in a worker has one."""
    if not isinstance(offer.fn, InWorker):
        return offer
    import cloudpickle

    copy = cloudpickle.loads(offer.fn.pickled)  # noqa: TID251 - pickled in this very process, by in_worker
    return Offer(offer.type, copy, offer.pd)
