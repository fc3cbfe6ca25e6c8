"""Engine and module: compiles source to an artifact, loads artifacts, reads types. Runs nothing.

Where and under which limits a compilation happens is its caller's business.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..errors import CallError, Cause, CompileError
from ..externs import ExportType, FuncType, ImportType
from ..source import check_header
from ..text import one_line
from . import capi
from .tables import tables_are_small
from .trampoline import Switch
from .types import Reader, new_functype

__all__ = ["Engine", "Module"]

# wasmtime's own default; it refuses to make an engine whose wasm stack is larger, by aborting the process.
_ASYNC_STACK = 2 << 20


class Engine:
    """One wasmtime engine. Artifacts load only into engines made with the same arguments."""

    def __init__(self, *, fuel: bool, interruptible: bool, stack_bytes: int) -> None:
        self.metered = fuel
        self.interruptible = interruptible
        self.stack_bytes = stack_bytes
        self.capi = c = capi.api()
        config = c.wasm_config_new()
        # Threads started for compiling make a later fork hang: measured 3 of 3.
        c.wasmtime_config_parallel_compilation_set(config, False)
        c.wasmtime_config_consume_fuel_set(config, fuel)
        c.wasmtime_config_epoch_interruption_set(config, interruptible)
        c.wasmtime_config_async_stack_size_set(config, max(_ASYNC_STACK, stack_bytes))
        c.wasmtime_config_max_wasm_stack_set(config, stack_bytes)
        c.wasmtime_config_debug_info_set(config, False)
        # Without, what a memory holds at first is written by generated code, and thousands of data segments, as each Go
        # program has, take a minute to compile.
        c.wasmtime_config_memory_init_cow_set(config, True)
        handle = c.wasm_engine_new_with_config(config)
        if not handle:
            raise OSError("wasmtime could not make an engine with this configuration")
        self._handle: int | None = handle
        self._functypes: dict[FuncType, int] = {}
        self._switches: list[Switch] = []
        self._reserved = 0

    @property
    def handle(self) -> int:
        """The `wasm_engine_t`; CallError, CLOSED, after `close`."""
        if self._handle is None:
            raise CallError("the engine is closed", cause=Cause.CLOSED)
        return self._handle

    def compile(self, source: bytes, *, text: bool) -> Module:
        """Compile a binary, or the text format's UTF-8. Raises CompileError, its text on one line, escaped and cut."""
        binary = self._assemble(source) if text else bytes(source)
        check_header(binary, text=text)
        c = self.capi
        out = ctypes.c_void_p()
        error = c.wasmtime_module_new(self.handle, binary, len(binary), ctypes.addressof(out))
        if error:
            raise CompileError(one_line(capi.take_text(c, error)))
        return Module(self, out.value, binary)

    def _assemble(self, source: bytes) -> bytes:
        c = self.capi
        with capi.Vec(c.wasm_byte_vec_delete) as vec:
            error = c.wasmtime_wat2wasm(source, len(source), vec.address)
            if error:
                raise CompileError(one_line(capi.take_text(c, error)))
            return vec.data()

    def deserialize(self, artifact: Any) -> Module:
        """Load what `Module.serialize` gave, from any buffer, uncopied. It is native code: authenticate it first.

        Raises CompileError when it was made by another version, for another machine, or for another configuration.
        """
        c = self.capi
        out = ctypes.c_void_p()
        with capi.buffer_address(artifact) as (address, size):
            error = c.wasmtime_module_deserialize(self.handle, address, size, ctypes.addressof(out))
        return self._loaded(out, error)

    def deserialize_mapped(self, fd: int) -> Module:
        """The same from a file that nobody can change any more, whose pages all who load it share. It may be closed
        then."""
        out = ctypes.c_void_p()
        path = b"/proc/self/fd/%d" % fd
        error = self.capi.wasmtime_module_deserialize_file(self.handle, path, ctypes.addressof(out))
        return self._loaded(out, error)

    def _loaded(self, out: ctypes.c_void_p, error: int | None) -> Module:
        if error:
            text = one_line(capi.take_text(self.capi, error))
            raise CompileError(f"the compiled artifact cannot be loaded: {text}", cause=Cause.HOST)
        return Module(self, out.value)

    def functype(self, type_: FuncType) -> int:
        """The `wasm_functype_t` of a host function, made once (in the fork server, for those that every guest has)."""
        made = self._functypes.get(type_)
        if made is None:
            fresh = new_functype(self.capi, type_)
            made = self._functypes.setdefault(type_, fresh)
            if made != fresh:  # another thread was faster
                self.capi.wasm_functype_delete(fresh)
        return made

    def reserve_switches(self, count: int) -> None:
        """Make so many now, to be used again and again: a worker's filter allows no memory to be made executable, and
        each has a little of it."""
        self._reserved = count
        while len(self._switches) < count:
            self._switches.append(Switch(self.capi))

    def take_switch(self) -> Switch:
        """For one guest."""
        try:
            return self._switches.pop()
        except IndexError:
            return Switch(self.capi)

    def give_switch(self, switch: Switch) -> None:
        """Of a guest that is no more."""
        switch.close()
        if len(self._switches) < self._reserved:
            self._switches.append(switch)

    def increment_epoch(self) -> None:
        """Interrupt what runs now, from any thread: every running guest traps with INTERRUPT at its next check."""
        self.capi.wasmtime_engine_increment_epoch(self.handle)

    def close(self) -> None:
        """Release the handle; modules and guests hold their own share of the engine. Twice is allowed."""
        handle, self._handle = self._handle, None
        if handle is not None:
            while self._functypes:
                self.capi.wasm_functype_delete(self._functypes.popitem()[1])
            self.capi.wasm_engine_delete(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


class Module:
    """A compiled module; independent of the engine object it came from."""

    def __init__(self, engine: Engine, handle: int | None, binary: bytes | None = None) -> None:
        self.engine = engine
        self.capi = engine.capi
        self._handle = handle
        # Only the source tells; an artifact's tables are reported without their limits.
        self._small_tables = binary is not None and tables_are_small(binary)
        self._imports: list[ImportType] | None = None
        self._exports: list[ExportType] | None = None

    @property
    def handle(self) -> int:
        """The `wasmtime_module_t`; CallError, CLOSED, after `close`."""
        if self._handle is None:
            raise CallError("the module is closed", cause=Cause.CLOSED)
        return self._handle

    def serialize(self) -> bytes:
        """The artifact, for `Engine.deserialize`."""
        c = self.capi
        with capi.Vec(c.wasm_byte_vec_delete) as vec:
            error = c.wasmtime_module_serialize(self.handle, vec.address)
            if error:
                raise CompileError(one_line(capi.take_text(c, error)))
            return vec.data()

    def imports(self) -> list[ImportType]:
        """All imports in declaration order, read once. Not to be changed by the caller."""
        if self._imports is None:
            self._imports = Reader(self.capi, small_tables=self._small_tables).imports(self.handle)
        return self._imports

    def exports(self) -> list[ExportType]:
        """All exports in declaration order, read once. Not to be changed by the caller."""
        if self._exports is None:
            self._exports = Reader(self.capi, small_tables=self._small_tables).exports(self.handle)
        return self._exports

    def close(self) -> None:
        """Release the handle; a guest made from it lives on. Twice is allowed."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self.capi.wasmtime_module_delete(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()
