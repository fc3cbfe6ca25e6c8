"""Matches what a module imports with what the user offers, as data for the worker, which links by the real types."""

from __future__ import annotations

import os
import sys

from ..callbacks import Callback
from ..externs import ImportType
from ..imports import InWorker, WasmImports
from ..limits import Limits
from ..protocol import messages as m


def ships_functions(wanted: tuple[ImportType, ...], imports: WasmImports) -> bool:
    """Whether the worker will take in functions of the user's: it must not be locked down before."""
    offers = (imports.offer(item.module, item.name) for item in wanted)
    return any(offer is not None and isinstance(offer.fn, InWorker) for offer in offers)


def unpickler() -> str:
    """Where the cloudpickle that pickled them lies; "" when that cannot be told: then each worker looks for one."""
    file = getattr(sys.modules.get("cloudpickle"), "__file__", None)
    return os.path.dirname(os.path.dirname(file)) if isinstance(file, str) and os.path.isabs(file) else ""


def plan(
    wanted: tuple[ImportType, ...],
    imports: WasmImports,
    limits: Limits,
    resolve: tuple[m.Resolve, ...],
    wasi: m.WasiSpec | None = None,
) -> tuple[m.Load, list[Callback]]:
    """The LOAD message for this module and these imports, and the functions that it numbers."""
    callbacks: list[Callback] = []
    specs: dict[tuple[str, str], m.OfferSpec] = {}
    for item in wanted:
        offer = imports.offer(item.module, item.name)
        key = (item.module, item.name)
        if offer is None or key in specs:
            continue
        pd = m.PD_NAMES.index(offer.pd or "")
        if offer.fn is None:
            specs[key] = m.OfferSpec(*key, offer.type, m.Where.STUB, pd)
        elif isinstance(offer.fn, InWorker):
            specs[key] = m.OfferSpec(*key, offer.type, m.Where.WORKER, pd, pickled=offer.fn.pickled)
        else:
            specs[key] = m.OfferSpec(*key, offer.type, m.Where.SUPERVISOR, pd, len(callbacks))
            callbacks.append(Callback(offer))
    shipped = any(spec.where == m.Where.WORKER for spec in specs.values())
    load = m.Load(
        fuel=limits.fuel,
        wall_us=0 if limits.wall_s is None else int(limits.wall_s * 1e6),
        offers=tuple(specs.values()),
        # What a shipped function's globals import is looked for where this process would.
        sys_path=_search_path() if shipped else (),
        resolve=resolve,
        wasi=wasi,
    )
    return load, callbacks


def _search_path() -> tuple[str, ...]:
    """`sys.path` for a process with another working directory; without what can be no path, as importing skips it."""
    found = []
    entries: list[object] = [*sys.path]
    for entry in entries:
        if not isinstance(entry, str):
            continue
        try:
            path = os.path.abspath(entry)
            os.fsencode(path)
        except (OSError, ValueError):  # no working directory any more; no bytes for this text
            continue
        found.append(path)
    return tuple(found)
