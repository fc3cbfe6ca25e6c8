"""`LocalInstance`: one guest in this process behind the interface; whose turn it is, what it may still do, its fuel.

It cannot end a running call: `close` and `kill` take effect when the call returns. It knows nothing of compiling.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..calls import FuelMeter, as_buffer, as_data, check_name, check_pages, check_range, encode_rows, plain_func
from ..errors import CallError, Cause, WasmError, WorkerCrashed
from ..imports import WasmImports
from ..interfaces import WasmInstance
from ..limits import Limits
from ..values import WasmVal
from ..wasi import Output, RunResult, Wasi
from .binding import binder
from .bound import Bound, bind_export, headroom
from .engine import Engine, Module
from .guest import Guest
from .hostcalls import HostCalls
from .program import Program

__all__ = ["LocalInstance"]


class LocalInstance(WasmInstance):
    """An instance in this process. Threads take turns; use from inside its own host function is refused."""

    def __init__(
        self, engine: Engine, module: Module, imports: WasmImports, limits: Limits, wasi: Wasi | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined] # as Condition does
        self._ended: Callable[[], WasmError] | None = None
        self._fuel = FuelMeter(limits.fuel, metered=engine.metered)
        self._bound: dict[str, Bound] = {}
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
        if self._calls_out:
            headroom()
        try:
            self._program = program = Program(guest, hosts, self._fuel, wasi)
        except BaseException:
            guest.close()
            raise
        try:
            self._fuel.begin()
            try:
                guest.instantiate(module, binder(imports, hosts, program.system), limits.fuel)
            finally:
                self._fuel.settle(guest.last_fuel)
            if wasi is not None:
                program.initialize(limits.fuel)
        except BaseException as exc:
            if isinstance(exc, WasmError) and wasi is not None:
                exc.output = program.written()
            self._delete()
            raise

    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[WasmVal]:
        """Call the export `func`; see `WasmInstance`. `wall_s` cannot be kept here: CallError."""
        values: list[WasmVal] = self._call(func, args, fuel, wall_s, False)
        return values

    def _call(self, func: str, args: Any, fuel: int | None, wall_s: object, plain: bool) -> Any:
        """The one call path: a list of WasmVals, or if `plain` what `func` returns."""
        if wall_s is not None:
            raise _no_clock()
        if self._owned():
            raise _reentered()
        meter = self._fuel
        try:
            with self._lock:
                if self._ended is not None:
                    raise self._ended()
                bound = self._bound.get(func) if type(func) is str else None
                if bound is None:
                    bound = self._bind(func)
                packed, failure = False, None
                try:
                    if plain and bound.fill_plain is not None:
                        bound.fill_plain(*args)
                    else:
                        bound.fill(args)
                    packed = True
                except Exception as exc:  # wrong, whatever they raise
                    failure = None if isinstance(exc, struct.error | TypeError) else exc
                if not packed:
                    bound.view[: bound.params.nbytes] = bound.params.encode(args)
                    if failure is not None:
                        raise failure  # a signal handler's
                budget = meter.plain if fuel is None and meter.plain is not None else meter.begin(fuel)
                if self._calls_out:
                    headroom()
                    self._hosts.reset()
                try:
                    used = bound.call(budget)
                except BaseException:
                    meter.settle(self._guest.last_fuel)
                    if self._ended is not None:
                        raise self._ended() from None
                    raise
                if fuel is None and meter.plain is not None:
                    meter.used += used
                else:
                    meter.settle(used)
                if self._ended is not None:  # closed or killed meanwhile: as the other hosts, no result
                    raise self._ended()
                raws, results = bound.unpack(bound.view), bound.results
                if results.make_one is not None:
                    if not plain:
                        return [results.make_one(raws[0])]
                    return raws[0] if results.plain_one is None else results.plain_one(raws[0])
                return results.plain(raws) if plain else results.make(raws)
        finally:
            if self._ended is not None:
                self._release()

    def call_many(
        self,
        func: str,
        rows: Iterable[Sequence[WasmVal | int | float]],
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[list[WasmVal]]:
        """Call `func` once per row, one budget of fuel and of host calls for all; see `WasmInstance`."""
        if wall_s is not None:
            raise _no_clock()
        self._refuse_reentry()
        done: list[list[WasmVal]] = []
        try:
            with self._lock:
                self._usable()
                bound = self._bind(func)
                size = bound.params.nbytes
                count, encoded = encode_rows(bound.params, rows, size)
                left = self._fuel.begin(fuel)
                if self._calls_out:
                    headroom()
                self._hosts.reset()
                self._rows(bound, encoded, count, left, done)
                return done
        finally:
            if self._ended is not None:
                self._release()

    def _rows(self, bound: Bound, encoded: bytes | bytearray, count: int, left: int, done: list[Any]) -> None:
        """Run the batch; `done` grows by what it answered."""
        guest, size, view, results = self._guest, bound.params.nbytes, bound.view, bound.results
        try:
            for at in range(0, count * size, size) if size else [0] * count:
                view[:size] = encoded[at : at + size]
                try:
                    bound.call(left)
                finally:
                    left -= guest.last_fuel
                    self._fuel.settle(guest.last_fuel)
                if self._ended is not None:
                    raise self._ended()
                done.append(results.make(bound.unpack(view)))
        except WasmError as exc:
            error = exc if self._ended is None else self._ended()
            error.row, error.results = len(done), done
            if error is exc:
                raise
            raise error from None

    def run(self, *, fuel: int | None = None, wall_s: float | None = None) -> RunResult:
        """Run the export `_start`, once; see `WasmInstance`. `wall_s` cannot be kept here: CallError."""
        if wall_s is not None:
            raise _no_clock()
        self._refuse_reentry()
        try:
            with self._lock:
                self._usable()
                return self._program.run(self._bind("_start"), fuel, self._why_ended)
        finally:
            if self._ended is not None:
                self._release()

    def output(self) -> Output:
        """What was written to captured streams since the last time."""
        self._refuse_reentry()
        with self._lock:
            return self._program.written()

    def func(self, name: str) -> Callable[..., Any]:
        """A callable over plain values, typed by the export's signature."""
        self._refuse_reentry()
        with self._lock:
            self._usable()
            type_ = self._bind(name).type
        return plain_func(name, type_, self._call)

    def memory_read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the exported memory."""
        start, size = check_range(offset, length)
        self._refuse_reentry()
        with self._lock:
            self._usable()
            return self._guest.memory_read(start, size)

    def memory_read_into(self, offset: int, buffer: Any) -> int:
        """Fill `buffer` with the exported memory at `offset`."""
        view = as_buffer(buffer)
        start, size = check_range(offset, len(view))
        self._refuse_reentry()
        with self._lock:
            self._usable()
            self._guest.memory_read_into(start, view)
        return size

    def memory_write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, or nothing."""
        raw = as_data(data)
        start, _ = check_range(offset, len(raw))
        self._refuse_reentry()
        with self._lock:
            self._usable()
            self._guest.memory_write(start, raw)

    def memory_grow(self, pages: int) -> int:
        """Grow the exported memory by `pages`; the number of pages before, or -1."""
        more = check_pages(pages)
        self._refuse_reentry()
        with self._lock:
            self._usable()
            return self._guest.memory_grow(more)

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
                self._delete()
            finally:
                self._lock.release()

    def _delete(self) -> None:
        self._guest.close()
        self._program.close()

    def _refuse_reentry(self) -> None:
        if self._owned():
            raise _reentered()

    def _usable(self) -> None:
        if self._ended is not None:
            raise self._ended()

    def _why_ended(self) -> WasmError | None:
        return None if self._ended is None else self._ended()

    def _bind(self, given: object) -> Bound:
        """The export, ready to be called over numbers, remembered; CallError otherwise."""
        name = check_name(given)
        known = self._bound.get(name)
        if known is not None:
            return known
        found = self._bound[name] = bind_export(self._guest, name, self._message_bytes)
        return found


def _reentered() -> CallError:
    return CallError("an instance cannot be used from inside its own host function")


def _no_clock() -> CallError:
    return CallError("WasmtimeHost runs in this process and cannot keep wall_s; use Supervisor")


def _closed() -> WasmError:
    return CallError("the instance is closed", cause=Cause.CLOSED)


def _killed() -> WasmError:
    return WorkerCrashed("worker crashed: killed by kill()", cause=Cause.CANCELLED)
