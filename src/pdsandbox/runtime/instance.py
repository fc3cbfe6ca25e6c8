"""`LocalInstance`: one guest in this process behind the interface; whose turn it is, what it may still do, its fuel.

It cannot end a running call: `close` and `kill` take effect when the call returns. It knows nothing of compiling.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from ctypes import memmove, string_at
from typing import Any

from ..calls import FuelMeter, as_data, check_name, check_range, encode_rows, no_export, plain_func, unsupported
from ..errors import CallError, Cause, WasmError, WorkerCrashed
from ..imports import InWorker, Offer, WasmImports
from ..interfaces import WasmInstance
from ..limits import Limits
from ..slots import SLOT_BYTES
from ..values import WasmVal
from .engine import Engine, Module
from .guest import Export, Guest, RawFunction
from .hostcalls import HostCalls

__all__ = ["LocalInstance"]

# wasmtime wants ValRaw aligned to its size; malloc promises as much for large blocks only.
_ALIGN = 16


class LocalInstance(WasmInstance):
    """An instance in this process. Threads take turns; use from inside its own host function is refused."""

    def __init__(self, engine: Engine, module: Module, imports: WasmImports, limits: Limits) -> None:
        self._lock = threading.RLock()
        self._ended: Callable[[], WasmError] | None = None
        self._fuel = FuelMeter(limits.fuel, metered=engine.metered)
        self._exports: dict[str, Export] = {}
        self._buffer = ctypes.create_string_buffer(0)
        self._address = 0
        self._size = -1
        self._calls_out = bool(module.imports())
        self._guest = guest = Guest(
            engine,
            memory_bytes=limits.memory_bytes,
            memories=limits.memories,
            table_elements=limits.table_elements,
        )
        self._hosts = hosts = HostCalls(
            guest,
            host_calls=limits.host_calls,
            host_call_bytes=limits.host_call_bytes,
            message_bytes=limits.message_bytes,
        )
        self._message_bytes = limits.message_bytes

        def bind(wanted: Any, _guest: Guest) -> RawFunction | None:
            offer = imports.offer(wanted.module, wanted.name)
            return None if offer is None else hosts.bind(wanted, _shipped(offer))

        self._headroom()
        try:
            guest.instantiate(module, bind, limits.fuel)
        except BaseException:
            guest.close()
            raise
        self._fuel.begin()
        self._fuel.settle(guest.last_fuel)

    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[WasmVal]:
        """Call the export `func`; see `WasmInstance`. `wall_s` cannot be kept here: CallError."""
        export, raw = self._call(func, args, fuel, wall_s)
        assert export.results is not None
        return export.results.decode(raw)

    def _call(self, func: str, args: Any, fuel: object, wall_s: object) -> tuple[Export, bytes]:
        """The one call path: (the export, its result slots)."""
        self._refuse_clock(wall_s)
        self._refuse_reentry()
        try:
            with self._lock:
                self._usable()
                export = self._export(func)
                params, results = export.params, export.results
                assert params is not None
                assert results is not None
                data = params.encode(args)
                self._check_message(len(data))
                address = self._room(export.nslots)
                budget = self._fuel.begin(fuel)
                memmove(address, data, len(data))
                self._run(export, address, budget)
                return export, string_at(address, results.nbytes)
        finally:
            if self._ended is not None:
                self._release()

    def _run(self, export: Export, address: int, budget: int) -> None:
        self._headroom()
        self._hosts.reset()
        try:
            self._guest.call(export, address, budget)
        except WasmError:
            if self._ended is not None:
                raise self._ended() from None
            raise
        finally:
            self._fuel.settle(self._guest.last_fuel)
        if self._ended is not None:  # closed or killed meanwhile: as the other hosts, no result
            raise self._ended()

    def call_many(
        self,
        func: str,
        rows: Iterable[Sequence[WasmVal | int | float]],
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[list[WasmVal]]:
        """Call `func` once per row, one budget of fuel and of host calls for all; see `WasmInstance`."""
        self._refuse_clock(wall_s)
        self._refuse_reentry()
        done: list[list[WasmVal]] = []
        try:
            with self._lock:
                self._usable()
                export = self._export(func)
                params = export.params
                assert params is not None
                encoded = encode_rows(params, rows)
                self._check_message(params.nbytes)
                self._room(export.nslots)
                left = self._fuel.begin(fuel)
                self._headroom()
                self._hosts.reset()
                self._rows(export, encoded, left, done)
                return done
        finally:
            if self._ended is not None:
                self._release()

    def _rows(self, export: Export, encoded: list[bytes], left: int, done: list[list[WasmVal]]) -> None:
        """Run the batch; `done` grows by what it answered."""
        guest, address, results = self._guest, self._address, export.results
        assert results is not None
        try:
            for data in encoded:
                memmove(address, data, len(data))
                try:
                    guest.call(export, address, left)
                finally:
                    left -= guest.last_fuel
                    self._fuel.settle(guest.last_fuel)
                if self._ended is not None:
                    raise self._ended()
                done.append(results.decode(string_at(address, results.nbytes)))
        except WasmError as exc:
            error = exc if self._ended is None else self._ended()
            error.row, error.results = len(done), done
            if error is exc:
                raise
            raise error from None

    def func(self, name: str) -> Callable[..., Any]:
        """A callable over plain values, typed by the export's signature."""
        self._refuse_reentry()
        with self._lock:
            self._usable()
            export = self._export(name)
            results = export.results
            assert results is not None

        def call(args: Sequence[Any]) -> tuple[Any, ...]:
            return results.decode_plain(self._call(name, args, None, None)[1])

        return plain_func(name, export.type, call)

    def memory_read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the exported memory."""
        start, size = check_range(offset, length)
        self._refuse_reentry()
        with self._lock:
            self._usable()
            return self._guest.memory_read(start, size)

    def memory_write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, or nothing."""
        raw = as_data(data)
        start, _ = check_range(offset, len(raw))
        self._refuse_reentry()
        with self._lock:
            self._usable()
            self._guest.memory_write(start, raw)

    def set_fuel(self, fuel: int) -> None:
        """One budget that the calls after this draw down together."""
        self._refuse_reentry()
        with self._lock:
            self._usable()
            self._fuel.set_fuel(fuel)

    def fuel_consumed(self) -> int | None:
        """Fuel used over the instance's life; of a running call once that has returned."""
        return self._fuel.consumed

    def close(self) -> None:
        """Release everything; while a call runs, when it returns: it then ends with CallError, cause CLOSED."""
        if self._ended is None:
            self._ended = _closed
        self._release()

    def kill(self) -> None:
        """No call can be ended here: a running one raises WorkerCrashed, cause CANCELLED, when it returns."""
        if self._ended is None:
            self._ended = _killed
        self._release()

    @property
    def alive(self) -> bool:
        """Whether calls can still succeed."""
        return self._ended is None

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def _release(self) -> None:
        """Delete the store, unless a call is running: its thread comes here when it is done."""
        # Whose lock it is decides first: an RLock lets its owner in again, in the middle of the call.
        if not self._owned() and self._lock.acquire(blocking=False):
            try:
                self._guest.close()
            finally:
                self._lock.release()

    def _owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return] # what Condition uses, too

    def _refuse_reentry(self) -> None:
        if self._owned():
            raise CallError("an instance cannot be used from inside its own host function")

    def _refuse_clock(self, wall_s: object) -> None:
        if wall_s is not None:
            raise CallError("WasmtimeHost runs in this process and cannot keep wall_s; use Supervisor")

    def _usable(self) -> None:
        if self._ended is not None:
            raise self._ended()

    def _export(self, given: object) -> Export:
        """The export, callable over numbers, remembered; CallError otherwise."""
        name = check_name(given)
        known = self._exports.get(name)
        if known is not None:
            return known
        export = self._guest.resolve(name)
        if export is None:
            raise no_export(name)
        if export.params is None or export.results is None:
            raise unsupported(export.name, export.type)
        self._exports[export.name] = export
        return export

    def _check_message(self, nbytes: int) -> None:
        limit = self._message_bytes
        if nbytes > limit:
            text = f"the arguments take {nbytes:,} bytes; message_bytes allows {limit:,}"
            raise CallError(text, limit=limit, observed=nbytes)

    def _room(self, nslots: int) -> int:
        """The address of an aligned buffer of at least that many slots, kept for the next call."""
        if nslots > self._size:
            self._buffer = ctypes.create_string_buffer(nslots * SLOT_BYTES + _ALIGN)
            self._address = -(-ctypes.addressof(self._buffer) // _ALIGN) * _ALIGN
            self._size = nslots
        return self._address

    def _headroom(self) -> None:
        """RecursionError now, rather than at the door of a ctypes callback, where it could not be caught."""
        if self._calls_out:
            for _ in map(_nested, (8,)):
                pass


def _shipped(offer: Offer) -> Offer:
    """The offer with its own copy of an `in_worker` function, as an instance in a worker has one."""
    if not isinstance(offer.fn, InWorker):
        return offer
    import cloudpickle

    copy = cloudpickle.loads(offer.fn.pickled)  # noqa: TID251 - pickled in this very process, by in_worker
    return Offer(offer.type, copy, offer.pd)


def _nested(depth: int) -> int:
    return depth and _nested(depth - 1)


def _closed() -> WasmError:
    return CallError("the instance is closed", cause=Cause.CLOSED)


def _killed() -> WasmError:
    return WorkerCrashed("worker crashed: killed by kill()", cause=Cause.CANCELLED)
