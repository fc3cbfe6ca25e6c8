"""Reads import and export types from a compiled module, as plain data; never asks wasmtime what it aborts on.

`wasm_valtype_kind` kills the process for v128, GC, typed and exception references. A value type is therefore only ever
compared with the seven that are known; anything else is "ref". This module holds no store and runs nothing.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..externs import ExportType, ExternType, FuncType, GlobalType, ImportType, MemoryType, TableType, TagType
from . import capi

__all__ = ["Reader", "new_functype"]

# wasm_valkind_t of the constructor, which is safe; ANYREF (128) is what wasm.h calls externref.
_KINDS = {"i32": 0, "i64": 1, "f32": 2, "f64": 3, "externref": 128, "funcref": 129}
_limits_max = 0xFFFF_FFFF

_known: dict[int, tuple[tuple[int, str], ...]] = {}


def _known_types(c: capi.Api) -> tuple[tuple[int, str], ...]:
    """The value types to compare with, made once per process and never freed."""
    found = _known.get(id(c))
    if found is None:
        pairs = [(c.wasm_valtype_new(kind), name) for name, kind in _KINDS.items()]
        pairs.append((c.wasmtime_wasm_valtype_v128(), "v128"))
        found = _known[id(c)] = tuple(pairs)
    return found


def _valtypes(c: capi.Api, types: tuple[str, ...]) -> capi.Vec:
    """A vector of number types; `wasm_functype_new` takes it over."""
    vec = capi.Vec(lambda _: None)
    items = (ctypes.c_size_t * max(1, len(types)))(*[c.wasm_valtype_new(_KINDS[name]) for name in types])
    c.wasm_valtype_vec_new(vec.address, len(types), ctypes.addressof(items))
    return vec


def new_functype(c: capi.Api, type_: FuncType) -> int:
    """An owned `wasm_functype_t` of number types. Its first use ties it to one engine: never share it between two."""
    params, results = _valtypes(c, type_.params), _valtypes(c, type_.results)
    made: int = c.wasm_functype_new(params.address, results.address)
    return made


class Reader:
    """Reads types; one per module, so that equal signatures become one object."""

    def __init__(self, c: capi.Api, *, small_tables: bool) -> None:
        self._c = c
        # `wasm_tabletype_limits` aborts the process for a limit of 2**32 or more, which 64-bit tables may have.
        self._small_tables = small_tables
        self._types = _known_types(c)
        self._equal = c.wasmtime_wasm_valtype_equal
        self._seen: dict[FuncType, FuncType] = {}

    def imports(self, module: int) -> list[ImportType]:
        """Imports of the `wasmtime_module_t`, in declaration order."""
        c = self._c
        with capi.Vec(c.wasm_importtype_vec_delete) as vec:
            c.wasmtime_module_imports(module, vec.address)
            return [
                ImportType(
                    capi.read_names(c.wasm_importtype_module(item)),
                    capi.read_names(c.wasm_importtype_name(item)),
                    self.extern(c.wasm_importtype_type(item)),
                )
                for item in capi.read_pointers(vec.address)
            ]

    def exports(self, module: int) -> list[ExportType]:
        """Exports of the `wasmtime_module_t`, in declaration order."""
        c = self._c
        with capi.Vec(c.wasm_exporttype_vec_delete) as vec:
            c.wasmtime_module_exports(module, vec.address)
            return [
                ExportType(capi.read_names(c.wasm_exporttype_name(item)), self.extern(c.wasm_exporttype_type(item)))
                for item in capi.read_pointers(vec.address)
            ]

    def extern(self, item: int) -> ExternType:
        """The borrowed `wasm_externtype_t`."""
        c = self._c
        kind = c.wasm_externtype_kind(item)
        if kind == capi.TYPE_FUNC:
            return self.function(c.wasm_externtype_as_functype_const(item))
        if kind == capi.TYPE_MEMORY:
            return self._memory(c.wasm_externtype_as_memorytype_const(item))
        if kind == capi.TYPE_TABLE:
            table = c.wasm_externtype_as_tabletype_const(item)
            element = self._value(c.wasm_tabletype_element(table))
            if not self._small_tables:
                return TableType(element, 0, None)
            low, high = (ctypes.c_uint32 * 2).from_address(c.wasm_tabletype_limits(table))
            return TableType(element, low, None if high == _limits_max else high)
        if kind == capi.TYPE_GLOBAL:
            variable = c.wasm_externtype_as_globaltype_const(item)
            mutable = c.wasm_globaltype_mutability(variable) == 1
            return GlobalType(self._value(c.wasm_globaltype_content(variable)), mutable)
        tag = c.wasm_externtype_as_tagtype_const(item)
        return TagType(self.function(c.wasm_tagtype_functype(tag)).params)

    def function(self, item: int) -> FuncType:
        """The borrowed `wasm_functype_t`."""
        c = self._c
        made = FuncType(self._values(c.wasm_functype_params(item)), self._values(c.wasm_functype_results(item)))
        return self._seen.setdefault(made, made)

    def _values(self, vec: int) -> tuple[str, ...]:
        value = self._value
        return tuple([value(item) for item in capi.read_pointers(vec)])

    def _value(self, item: int) -> str:
        equal = self._equal
        for known, name in self._types:
            if equal(item, known):
                return name
        return "ref"

    def _memory(self, item: int) -> MemoryType:
        c = self._c
        most = ctypes.c_uint64()
        bounded: Any = c.wasmtime_memorytype_maximum(item, ctypes.addressof(most))
        return MemoryType(
            c.wasmtime_memorytype_minimum(item),
            most.value if bounded else None,
            c.wasmtime_memorytype_is64(item),
            c.wasmtime_memorytype_isshared(item),
            c.wasmtime_memorytype_page_size(item),
        )
