"""`LocalInstance`: one guest in this process behind the interface; whose turn it is, what it may still do, its fuel.

It cannot end a running call: `close` and `kill` take effect when the call returns. It knows nothing of compiling.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..calls import (
    FuelMeter,
    as_buffer,
    as_data,
    check_name,
    check_range,
    encode_rows,
    no_export,
    plain_func,
    unsupported,
)
from ..errors import CallError, Cause, GuestExit, WasmError, WorkerCrashed
from ..externs import FuncType
from ..imports import WasmImports
from ..interfaces import WasmInstance
from ..limits import Limits
from ..slots import SLOT_BYTES, Slots
from ..values import WasmVal
from ..wasi import Output, RunResult, Wasi
from . import verdict
from .binding import binder
from .engine import Engine, Module
from .guest import Export, Guest
from .hostcalls import HostCalls

if TYPE_CHECKING:
    from .wasi.system import System

__all__ = ["LocalInstance"]

# wasmtime wants ValRaw aligned to its size; malloc promises as much for large blocks only.
_ALIGN = 16
# The type of `_start` and of `_initialize`.
_COMMAND: Final = FuncType((), ())


class _Bound:
    """An export with a buffer of its own: `call(fuel)` over the slots in `view`."""

    __slots__ = ("_block", "call", "pack", "params", "results", "type", "unpack", "view")

    def __init__(self, guest: Guest, export: Export, params: Slots, results: Slots) -> None:
        self.type, self.params, self.results = export.type, params, results
        self._block: Any = ctypes.create_string_buffer(export.nslots * SLOT_BYTES + _ALIGN)
        start = -ctypes.addressof(self._block) % _ALIGN
        self.view = memoryview(self._block).cast("B")[start:]
        self.call = guest.bind(export, ctypes.addressof(self._block) + start)
        self.pack: Callable[..., None] = _refuse if params.plain_struct is None else params.plain_struct.pack_into
        self.unpack = struct.Struct("<" + results.fields).unpack_from


def _refuse(*_args: object) -> None:
    raise TypeError


class LocalInstance(WasmInstance):
    """An instance in this process. Threads take turns; use from inside its own host function is refused."""

    def __init__(
        self, engine: Engine, module: Module, imports: WasmImports, limits: Limits, wasi: Wasi | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined] # as Condition does
        self._ended: Callable[[], WasmError] | None = None
        self._fuel = FuelMeter(limits.fuel, metered=engine.metered)
        self._bound: dict[str, _Bound] = {}
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
        self._system: System | None = None
        self._has_run = False

        self._headroom()
        try:
            if wasi is not None:
                from .wasi.local import local_system

                self._system = local_system(guest, wasi)
            self._fuel.begin()
            try:
                guest.instantiate(module, binder(imports, hosts, self._system), limits.fuel)
            finally:
                self._fuel.settle(guest.last_fuel)
            if wasi is not None:
                self._initialize(limits.fuel)
        except BaseException as exc:
            if isinstance(exc, WasmError) and self._system is not None:
                exc.output = self._system.standard.written()
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
                    bound.pack(bound.view, 0, *(args if plain else bound.params.raw(args)))
                    packed = True
                except Exception as exc:  # floats, or wrong, whatever they raise
                    failure = None if isinstance(exc, struct.error | TypeError) else exc
                if not packed:
                    bound.view[: bound.params.nbytes] = bound.params.encode(args)
                    if failure is not None:
                        raise failure  # a signal handler's
                budget = meter.plain if fuel is None and meter.plain is not None else meter.begin(fuel)
                if self._calls_out:
                    self._headroom()
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
                raws = bound.unpack(bound.view)
                return bound.results.plain(raws) if plain else bound.results.make(raws)
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
                self._headroom()
                self._hosts.reset()
                self._rows(bound, encoded, count, left, done)
                return done
        finally:
            if self._ended is not None:
                self._release()

    def _rows(self, bound: _Bound, encoded: bytes | bytearray, count: int, left: int, done: list[Any]) -> None:
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

    def _initialize(self, fuel: int | None) -> None:
        """A reactor's constructor, with what instantiating has left of its fuel."""
        try:
            export = None if self._guest.resolve("_start") else self._guest.resolve("_initialize")
        except CallError:  # no function, whatever its name
            return
        if export is None or export.type != _COMMAND:
            return
        bound = self._bind(export.name)
        left = self._fuel.begin()
        if fuel is not None:
            left = max(0, left - (self._fuel.consumed or 0))
        self._hosts.reset()
        try:
            bound.call(left)
        except WasmError as exc:
            raise verdict.while_instantiating(exc) from exc
        finally:
            self._fuel.settle(self._guest.last_fuel)

    def run(self, *, fuel: int | None = None, wall_s: float | None = None) -> RunResult:
        """Run the export `_start`, once; see `WasmInstance`. `wall_s` cannot be kept here: CallError."""
        if wall_s is not None:
            raise _no_clock()
        self._refuse_reentry()
        try:
            with self._lock:
                self._usable()
                bound = self._bind("_start")
                if bound.type != _COMMAND:
                    raise CallError(f'"_start" has type {bound.type}; a command takes and gives nothing')
                if self._has_run:
                    raise CallError("a command runs once: make another instance to run it again")
                budget = self._fuel.begin(fuel)
                self._has_run = True
                try:
                    code = self._command(bound, budget)
                except WasmError as exc:
                    exc.output = self._written()
                    raise
                used = self._guest.last_fuel if self._fuel.metered else None
                written = self._written()
                return RunResult(code, written.stdout, written.stderr, written.truncated, used)
        finally:
            if self._ended is not None:
                self._release()

    def _command(self, bound: _Bound, budget: int) -> int:
        """The exit code."""
        code = 0
        self._headroom()
        self._hosts.reset()
        try:
            bound.call(budget)
        except GuestExit as exc:
            code = exc.exit_code or 0
        except WasmError:
            if self._ended is not None:
                raise self._ended() from None
            raise
        finally:
            self._fuel.settle(self._guest.last_fuel)
        if self._ended is not None:  # closed or killed meanwhile: as the other hosts, no result
            raise self._ended()
        return code

    def output(self) -> Output:
        """What was written to captured streams since the last time."""
        self._refuse_reentry()
        with self._lock:
            return self._written()

    def _written(self) -> Output:
        return Output() if self._system is None else self._system.standard.written()

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
        if self._system is not None:
            self._system.close()

    def _refuse_reentry(self) -> None:
        if self._owned():
            raise _reentered()

    def _usable(self) -> None:
        if self._ended is not None:
            raise self._ended()

    def _bind(self, given: object) -> _Bound:
        """The export, ready to be called over numbers, remembered; CallError otherwise."""
        name = check_name(given)
        known = self._bound.get(name)
        if known is not None:
            return known
        export = self._guest.resolve(name)
        if export is None:
            raise no_export(name)
        if export.params is None or export.results is None:
            raise unsupported(export.name, export.type)
        limit = self._message_bytes
        if export.params.nbytes > limit:
            text = f"the arguments take {export.params.nbytes:,} bytes; message_bytes allows {limit:,}"
            raise CallError(text, limit=limit, observed=export.params.nbytes)
        bound = self._bound[export.name] = _Bound(self._guest, export, export.params, export.results)
        return bound

    def _headroom(self) -> None:
        """RecursionError now, rather than at the door of a ctypes callback, where it could not be caught."""
        if self._calls_out:
            for _ in map(_nested, (8,)):
                pass


def _nested(depth: int) -> int:
    return depth and _nested(depth - 1)


def _reentered() -> CallError:
    return CallError("an instance cannot be used from inside its own host function")


def _no_clock() -> CallError:
    return CallError("WasmtimeHost runs in this process and cannot keep wall_s; use Supervisor")


def _closed() -> WasmError:
    return CallError("the instance is closed", cause=Cause.CLOSED)


def _killed() -> WasmError:
    return WorkerCrashed("worker crashed: killed by kill()", cause=Cause.CANCELLED)
