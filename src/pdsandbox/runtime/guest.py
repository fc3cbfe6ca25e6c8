"""One store with one instance: what a worker and the in-process host both drive. One thread at a time.

Raises the contract's errors. It knows nothing of host-function conventions (`hostcalls`), of pipes, or of how long
anything may take. The GIL is released while the guest runs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import addressof, memmove, string_at
from dataclasses import dataclass
from typing import Any, Final

from .. import cargs
from ..calls import not_a_function
from ..errors import UNKNOWN_TRAP, CallError, Cause, InstantiationError, MemoryAccessError, Trap
from ..externs import NUMBER_TYPES, FuncType, ImportType, MemoryType
from ..slots import SLOT_BYTES, Slots
from ..text import one_line, quoted
from . import capi, verdict
from .engine import Engine, Module
from .types import Reader

__all__ = ["Bind", "Export", "Guest", "RawFunction"]

# The store limiter takes a count of tables: enough for any compiler's output, and each has its own element limit.
MAX_TABLES: Final = 100
_SAID: Final = struct.Struct("=QQ")
# `ctypes.string_at` takes a C int.
_STRING_AT_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RawFunction:
    """A host function at its lowest: `fn(slots_addr)` reads its arguments from, and writes its results to, the 16-byte
    raw slots at that address. Whatever it raises ends the guest's call."""

    type: FuncType
    fn: Callable[[int], None]


Bind = Callable[[ImportType, "Guest"], RawFunction | None]


class Export:
    """An exported function, looked up once. `params` and `results` are None where a type cannot cross."""

    __slots__ = ("_extern", "func", "name", "nslots", "params", "results", "type")

    def __init__(self, name: str, type_: FuncType, extern: ctypes.Array[ctypes.c_char]) -> None:
        self.name = name
        self.type = type_
        self._extern = extern  # owns what `func` points to
        self.func: int = addressof(extern) + capi.EXTERN_OF
        self.params = Slots(type_.params) if _numbers(type_.params) else None
        self.results = Slots(type_.results) if _numbers(type_.results) else None
        self.nslots = max(len(type_.params), len(type_.results))


def _numbers(types: tuple[str, ...]) -> bool:
    return all(name in NUMBER_TYPES for name in types)


class Guest:
    """A store, limited, and the instance in it. `close` it: a guest that is in use lives in reference cycles."""

    def __init__(self, engine: Engine, *, memory_bytes: int | None, memories: int, table_elements: int | None) -> None:
        self.engine = engine
        self._c = c = engine.capi
        self._metered = engine.metered
        self._interruptible = engine.interruptible
        #: Fuel that the last call or instantiation used, whatever it ended in; 0 where it is not metered.
        self.last_fuel = 0
        self._switch = engine.take_switch()
        # Arguments of C calls made once: converting them anew takes longer than the calls (`bind`).
        said = (ctypes.c_uint64 * 2)()  # by C, of the last call: its trap, and fuel that is left
        self._said = memoryview(said).cast("B")
        self._trap, self._fuel = ctypes.c_void_p.from_buffer(said), ctypes.c_uint64.from_buffer(said, 8)
        self._trap_at, self._fuel_at = (cargs.pointer(addressof(said) + at) for at in (0, 8))
        self._budget = ctypes.c_uint64()
        self._prepared = -1  # the fuel that is set already; no call has begun since, and the store is there
        self._instance = (ctypes.c_uint64 * 2)()
        self._instance_at: int = addressof(self._instance)
        #: Whether any function is imported.
        self.calls_out = False
        self._ready = False
        self._module: Module | None = None
        self._memory: ctypes.Array[ctypes.c_char] | None = None
        self._memory_at: Any = None  # for C, once it is found
        self._memory_seen = (0, 0)
        self._raw_call = c.raw("wasmtime_func_call_unchecked")
        self._raw_set_fuel, self._raw_get_fuel = (c.raw(f"wasmtime_context_{verb}_fuel") for verb in ("set", "get"))
        self._raw_memory_size = c.raw("wasmtime_memory_data_size")
        self._store: int | None = c.wasmtime_store_new(engine.handle, None, None)
        self._ctx = cargs.pointer(c.wasmtime_store_context(self._store))
        limits = [-1 if n is None else n for n in (memory_bytes, table_elements)]
        c.wasmtime_store_limiter(self._store, *limits, 1, MAX_TABLES, memories)

    def instantiate(self, module: Module, bind: Bind, fuel: int | None) -> None:
        """Link and instantiate; the start function runs with `fuel` (None: no budget). Once per guest.

        Raises InstantiationError; FuelExhausted, GuestExit, or a KeyboardInterrupt from a host function, as they are.
        """
        if self._store is None:
            raise _closed()
        self._module = module
        imports = module.imports()
        externs = (ctypes.c_uint64 * (4 * max(1, len(imports))))()
        at: int = addressof(externs)
        for item in imports:
            self._define(item, bind(item, self) if isinstance(item.type, FuncType) else None, at)
            at += capi.EXTERN_BYTES
        budget = self._begin(2**63 - 1 if fuel is None else fuel)
        try:
            error = self._c.wasmtime_instance_new(
                self._ctx, module.handle, addressof(externs), len(imports), self._instance_at, self._trap_at
            )
            if error is not None or self._trap.value is not None:
                raise verdict.while_instantiating(self._outcome(error, linking=True))
        except BaseException:
            self._drop_outcome()
            self._settle(budget)
            raise
        self._settle(budget)
        self._ready = True

    def _define(self, item: ImportType, function: RawFunction | None, at: int) -> None:
        """Write the extern for one import, or say why it cannot be."""
        name = f"{quoted(item.module)}.{quoted(item.name)}"
        if not isinstance(item.type, FuncType):
            raise InstantiationError(f"import {name} is a {item.type}; only functions can be imported")
        if function is None:
            raise InstantiationError(f"missing import {name}")
        if function.type != item.type:
            wanted, offered = one_line(str(item.type), 300), one_line(str(function.type), 300)
            raise InstantiationError(f"import {name} has type {wanted}, but the host function has {offered}")
        index = self._switch.add(function.fn)
        self.calls_out = True
        functype = self.engine.functype(function.type)
        ctypes.c_uint8.from_address(at).value = capi.EXTERN_FUNC
        self._c.wasmtime_func_new_unchecked(
            self._ctx, functype, self._switch.callback, index, None, at + capi.EXTERN_OF
        )

    def resolve(self, name: str) -> Export | None:
        """The exported function, with its real type; None when there is no such export. Look it up once and keep it."""
        try:
            encoded = name.encode()
        except UnicodeEncodeError:
            return None  # a lone surrogate: no valid module has such a name
        extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        if not self._export_get(encoded, extern):
            return None
        if extern.raw[0] != capi.EXTERN_FUNC:
            raise not_a_function(name)
        c = self._c
        functype = c.wasmtime_func_type(self._ctx, addressof(extern) + capi.EXTERN_OF)
        try:
            type_ = Reader(c, small_tables=False).function(functype)
        finally:
            c.wasm_functype_delete(functype)
        return Export(name, type_, extern)

    def _export_get(self, name: bytes, extern: ctypes.Array[ctypes.c_char]) -> bool:
        c = self._c
        if self._store is None:
            raise _closed()
        if self._ready:
            return bool(
                c.wasmtime_instance_export_get(self._ctx, self._instance_at, name, len(name), addressof(extern))
            )
        caller = self._switch.caller  # the start function's host call: there is no instance to ask yet
        return bool(caller and c.wasmtime_caller_export_get(caller, name, len(name), addressof(extern)))

    def bind(self, export: Export, buffer_addr: int) -> Callable[[int], int]:
        """`call(fuel)`: one call over the slots at `buffer_addr`, arguments in place, results in place; the fuel used.

        Whoever calls it answers for the buffer (16-byte aligned, `export.nslots` slots long, holding `export.params`'
        encoding) and for `export` being this guest's. `fuel` is ignored where it is not metered. On an error,
        `last_fuel` has what was used.
        """
        at = cargs.pointer(export.func), cargs.pointer(buffer_addr), cargs.size(export.nslots)
        with_slots, with_fuel = (self._ctx, *at, self._trap_at), (self._ctx, self._fuel_at)
        run, get_fuel, said, what = self._raw_call, self._raw_get_fuel, self._said, _SAID.unpack
        metered, interruptible = self._metered, self._interruptible

        def call(fuel: int) -> int:
            if fuel != self._prepared and self._store is None:
                raise _closed()
            try:
                if interruptible:
                    self._set_deadline()
                if metered:
                    if fuel != self._prepared:
                        self.prepare(fuel)
                    self._prepared = -1
                    error = run(*with_slots)
                    get_fuel(*with_fuel)
                    trap, left = what(said)
                    used: int = fuel - left
                    self.last_fuel = used
                else:
                    error = run(*with_slots)
                    trap, used = self._trap.value, 0
                if error is None and not trap:
                    return used
                raise self._outcome(error)
            except BaseException:
                # Also for a KeyboardInterrupt that arrives between two of these lines: nothing may surface later.
                self._drop_outcome()
                self._settle(fuel)
                raise

        call.export = export  # type: ignore[attr-defined] # owns what `func` points to
        return call

    def call_rows(self, export: Export, buffer_addr: int, rows: int, fuel: int) -> tuple[int, BaseException | None]:
        """Call once a row, in place, rows following each other at `buffer_addr` with `export.nslots` slots each. One
        budget for all: (rows done, why the next one failed). `last_fuel` has what was used. As `bind`."""
        ctx, trap, trap_at, run = self._ctx, self._trap, self._trap_at, self._raw_call
        func, nslots, stride = cargs.pointer(export.func), cargs.size(export.nslots), export.nslots * SLOT_BYTES
        slots, at, done = ctypes.c_void_p(), buffer_addr, 0
        failure: BaseException | None = None
        self._begin(fuel)
        try:
            while done < rows:
                slots.value = at
                error = run(ctx, func, slots, nslots, trap_at)
                if error is not None or trap.value is not None:
                    failure = self._outcome(error)
                    break
                at += stride
                done += 1
        except MemoryError as exc:
            failure = exc
            self._drop_outcome()
        finally:
            self._settle(fuel)
        return done, failure

    def prepare(self, fuel: int) -> None:
        """Set the fuel of the next call, which most likely gets as much, while nobody waits."""
        if self._metered:
            self._budget.value, self._prepared = fuel, -1
            self._raw_set_fuel(self._ctx, self._budget)
            self._prepared = fuel

    def _set_deadline(self) -> None:
        self._c.wasmtime_context_set_epoch_deadline(self._ctx, 1)

    def _begin(self, fuel: int) -> int:
        self.prepare(fuel)
        self._prepared = -1
        if self._interruptible:
            self._set_deadline()
        return fuel

    def _settle(self, fuel: int) -> None:
        if self._metered:
            self._c.wasmtime_context_get_fuel(self._ctx, self._fuel_at)
            self.last_fuel = max(0, fuel - self._fuel.value)

    def _outcome(self, error: int | None, *, linking: bool = False) -> BaseException:
        """What a failed call ended in. An exception from a host function decides; its trap is only the vehicle."""
        c = self._c
        trap, self._trap.value = self._trap.value, None
        pending = self._switch.take()
        uncaught = self._take_exception()
        if pending is not None:
            if trap is not None:
                c.wasm_trap_delete(trap)
            if error is not None:
                c.wasmtime_error_delete(error)
            return pending
        if trap is not None:
            return verdict.from_trap(c, trap, uncaught=uncaught)
        assert error is not None
        text, frames = verdict.from_error(c, error)
        if linking and not frames:
            return InstantiationError(one_line(text))
        return Trap(UNKNOWN_TRAP, frames=frames)

    def _take_exception(self) -> bool:
        """Whether a wasm exception was left in the store; it is dropped, or it would live as long as the store."""
        exnref = (ctypes.c_uint64 * 4)()
        at: int = addressof(exnref)
        if not self._c.wasmtime_context_take_exception(self._ctx, at):
            return False
        self._c.wasmtime_exnref_unroot(at)
        return True

    def _drop_outcome(self) -> None:
        trap, self._trap.value = self._trap.value, None
        self._switch.take()
        if trap is not None:
            self._c.wasm_trap_delete(trap)

    def find_memory_soon(self) -> None:
        """`find_memory` if it is called "memory": then that takes a microsecond."""
        extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        if self._memory is None and self._export_get(b"memory", extern) and extern.raw[0] == capi.EXTERN_MEMORY:
            self._found(extern)

    def where(self) -> tuple[int, int]:
        """(address, bytes) of the exported memory now; zeros without one, and before anything looked it up."""
        if self._memory_at is None:
            return 0, 0
        size: int = self._raw_memory_size(self._ctx, self._memory_at)
        if size != self._memory_seen[1]:  # nothing but growth moves it
            base: int | None = self._c.wasmtime_memory_data(self._ctx, self._memory_at)
            self._memory_seen = (base or 0, size)
        return self._memory_seen

    def memory_read(self, offset: int, length: int) -> bytes:
        """A copy; MemoryAccessError outside the memory or without one."""
        address = self.address(offset, length)
        if length > _STRING_AT_MAX:
            return (ctypes.c_char * length).from_address(address).raw
        return string_at(address, length)

    def memory_read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`, writable bytes; MemoryAccessError as for `memory_read`."""
        address, size = self.address(offset, len(view)), len(view)
        if size:
            memmove(addressof((ctypes.c_char * size).from_buffer(view)), address, size)

    def memory_write(self, offset: int, data: bytes) -> None:
        """All of `data` or nothing; MemoryAccessError outside the memory or without one."""
        address = self.address(offset, len(data))
        if data:
            memmove(address, data, len(data))

    def memory_write_from(self, offset: int, source: int, length: int) -> None:
        """The same for `length` bytes at address `source` of this process."""
        memmove(self.address(offset, length), source, length)

    def memory_grow(self, pages: int) -> int:
        """As the instruction `memory.grow`: its pages before, or -1; MemoryAccessError without a memory."""
        self.address(0, 0)
        before = ctypes.c_uint64()
        error = self._c.wasmtime_memory_grow(self._ctx, self._memory_at, pages, addressof(before))
        if error is not None:
            self._c.wasmtime_error_delete(error)
        return before.value if error is None else -1

    def memory_check(self, offset: int, length: int) -> None:
        """MemoryAccessError unless the range lies inside the memory."""
        self.address(offset, length)

    def address(self, offset: int, length: int) -> int:
        """Where these bytes of the memory are in this process, until the guest runs on: memory moves when it grows.
        MemoryAccessError unless all of them lie inside the memory, or without one."""
        if not self.find_memory() or offset < 0 or length < 0:
            raise MemoryAccessError
        base, size = self.where()
        if offset + length > size:
            raise MemoryAccessError
        return base + offset

    def find_memory(self) -> bool:
        """Find "memory", else the first exported memory, which `where` does not do; it stays found."""
        if self._store is None:
            raise _closed()
        if self._memory is not None:
            return self._memory_at is not None
        if not self._ready and not self._switch.caller:
            return False
        extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        found = self._export_get(b"memory", extern) and extern.raw[0] == capi.EXTERN_MEMORY
        if not found and self._module is not None:  # only now: listing 10,000 exports takes 0.1 s
            for item in self._module.exports():
                if isinstance(item.type, MemoryType):
                    found = self._export_get(item.name.encode(), extern) and extern.raw[0] == capi.EXTERN_MEMORY
                    break
        self._memory = None if found else extern
        if found:
            self._found(extern)
        return found

    def _found(self, extern: ctypes.Array[ctypes.c_char]) -> None:
        at = cargs.pointer(addressof(extern) + capi.EXTERN_OF)
        self._memory, self._memory_at = extern, at  # both or, where a signal handler raises, none

    def close(self) -> None:
        """Delete the store and all in it. Not while a call runs. Twice is allowed."""
        store, self._store, self._prepared = self._store, None, -1
        if store is not None:
            self._c.wasmtime_store_delete(store)
            self.engine.give_switch(self._switch)
            self._module = None

    def __del__(self) -> None:
        if getattr(self, "_store", None) is not None:
            self.close()


def _closed() -> CallError:
    return CallError("the instance is closed", cause=Cause.CLOSED)
