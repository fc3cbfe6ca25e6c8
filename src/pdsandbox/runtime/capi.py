"""A thin ctypes binding of the part of wasmtime's C API that is used here; every handle is a plain int.

It loads the shared library itself: importing the wasmtime package costs 35 to 80 ms, and its pages at every fork.
It knows nothing of stores or calls; whoever gets an owned handle deletes it. Prototypes: `wasm.h` and `wasmtime/*.h`
of the tested versions (see `locate`).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_bool, c_char_p, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any, Final

__all__ = ["Api", "HostCallback", "api", "buffer_address", "load", "read_names", "take_text"]

_P = c_void_p
_N = c_size_t

#: wasm_trap_t *(*)(void *env, wasmtime_caller_t *, wasmtime_val_raw_t *, size_t); sizes, not pointers, so that 0 is 0.
HostCallback = CFUNCTYPE(c_void_p, c_size_t, c_size_t, c_size_t, c_size_t)

# Kinds in `wasmtime_extern_t` and of `wasm_externtype_t`: two enumerations that differ in the last places.
EXTERN_FUNC: Final = 0
EXTERN_MEMORY: Final = 3
TYPE_FUNC, TYPE_GLOBAL, TYPE_TABLE, TYPE_MEMORY, TYPE_TAG = range(5)

#: sizeof(wasmtime_extern_t), and where its union starts.
EXTERN_BYTES: Final = 32
EXTERN_OF: Final = 8

# May run long or call back: the GIL is released around these.
_BLOCKING: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wasm_engine_new_with_config": (_P, (_P,)),
    "wasm_engine_delete": (None, (_P,)),
    "wasmtime_module_new": (_P, (_P, c_char_p, _N, _P)),
    "wasmtime_module_deserialize": (_P, (_P, _P, _N, _P)),
    "wasmtime_module_deserialize_file": (_P, (_P, c_char_p, _P)),
    "wasmtime_module_serialize": (_P, (_P, _P)),
    "wasmtime_module_delete": (None, (_P,)),
    "wasmtime_module_imports": (None, (_P, _P)),
    "wasmtime_module_exports": (None, (_P, _P)),
    "wasmtime_wat2wasm": (_P, (c_char_p, _N, _P)),
    "wasmtime_store_delete": (None, (_P,)),
    "wasmtime_instance_new": (_P, (_P, _P, _P, _N, _P, _P)),
    "wasmtime_func_call_unchecked": (_P, (_P, _P, _P, _N, _P)),
    "wasmtime_memory_grow": (_P, (_P, _P, c_uint64, _P)),
}
# Return at once: through PyDLL, which keeps the GIL. Releasing it costs more than these do.
_QUICK: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wasm_config_new": (_P, ()),
    "wasmtime_config_parallel_compilation_set": (None, (_P, c_bool)),
    "wasmtime_config_consume_fuel_set": (None, (_P, c_bool)),
    "wasmtime_config_epoch_interruption_set": (None, (_P, c_bool)),
    "wasmtime_config_max_wasm_stack_set": (None, (_P, _N)),
    "wasmtime_config_async_stack_size_set": (None, (_P, _N)),
    "wasmtime_config_debug_info_set": (None, (_P, c_bool)),
    "wasmtime_config_memory_init_cow_set": (None, (_P, c_bool)),
    "wasmtime_engine_increment_epoch": (None, (_P,)),
    "wasmtime_store_new": (_P, (_P, _P, _P)),
    "wasmtime_store_context": (_P, (_P,)),
    "wasmtime_store_limiter": (None, (_P, c_int64, c_int64, c_int64, c_int64, c_int64)),
    "wasmtime_context_set_fuel": (_P, (_P, c_uint64)),
    "wasmtime_context_get_fuel": (_P, (_P, _P)),
    "wasmtime_context_set_epoch_deadline": (None, (_P, c_uint64)),
    "wasmtime_context_take_exception": (c_bool, (_P, _P)),
    "wasmtime_exnref_unroot": (None, (_P,)),
    "wasmtime_func_new_unchecked": (None, (_P, _P, HostCallback, _P, _P, _P)),
    "wasmtime_func_type": (_P, (_P, _P)),
    "wasmtime_instance_export_get": (c_bool, (_P, _P, c_char_p, _N, _P)),
    "wasmtime_caller_export_get": (c_bool, (_P, c_char_p, _N, _P)),
    "wasmtime_memory_data": (_P, (_P, _P)),
    "wasmtime_memory_data_size": (_N, (_P, _P)),
    "wasmtime_trap_new_code": (_P, (c_uint8,)),
    "wasmtime_trap_code": (c_bool, (_P, _P)),
    "wasm_trap_delete": (None, (_P,)),
    "wasm_trap_trace": (None, (_P, _P)),
    "wasmtime_error_message": (None, (_P, _P)),
    "wasmtime_error_wasm_trace": (None, (_P, _P)),
    "wasmtime_error_delete": (None, (_P,)),
    "wasm_frame_vec_delete": (None, (_P,)),
    "wasm_frame_func_index": (c_uint32, (_P,)),
    "wasm_frame_func_offset": (_N, (_P,)),
    "wasm_frame_module_offset": (_N, (_P,)),
    "wasmtime_frame_func_name": (_P, (_P,)),
    "wasmtime_frame_module_name": (_P, (_P,)),
    "wasm_byte_vec_delete": (None, (_P,)),
    "wasm_valtype_new": (_P, (c_uint8,)),
    "wasm_valtype_delete": (None, (_P,)),
    "wasm_valtype_vec_new": (None, (_P, _N, _P)),
    "wasmtime_wasm_valtype_v128": (_P, ()),
    "wasmtime_wasm_valtype_equal": (c_bool, (_P, _P)),
    "wasm_functype_new": (_P, (_P, _P)),
    "wasm_functype_delete": (None, (_P,)),
    "wasm_functype_params": (_P, (_P,)),
    "wasm_functype_results": (_P, (_P,)),
    "wasm_importtype_vec_delete": (None, (_P,)),
    "wasm_importtype_module": (_P, (_P,)),
    "wasm_importtype_name": (_P, (_P,)),
    "wasm_importtype_type": (_P, (_P,)),
    "wasm_exporttype_vec_delete": (None, (_P,)),
    "wasm_exporttype_name": (_P, (_P,)),
    "wasm_exporttype_type": (_P, (_P,)),
    "wasm_externtype_kind": (c_uint8, (_P,)),
    "wasm_externtype_as_functype_const": (_P, (_P,)),
    "wasm_externtype_as_globaltype_const": (_P, (_P,)),
    "wasm_externtype_as_tabletype_const": (_P, (_P,)),
    "wasm_externtype_as_memorytype_const": (_P, (_P,)),
    "wasm_externtype_as_tagtype_const": (_P, (_P,)),
    "wasmtime_memorytype_minimum": (c_uint64, (_P,)),
    "wasmtime_memorytype_maximum": (c_bool, (_P, _P)),
    "wasmtime_memorytype_is64": (c_bool, (_P,)),
    "wasmtime_memorytype_isshared": (c_bool, (_P,)),
    "wasmtime_memorytype_page_size": (c_uint64, (_P,)),
    "wasm_tabletype_element": (_P, (_P,)),
    "wasm_tabletype_limits": (_P, (_P,)),
    "wasm_globaltype_content": (_P, (_P,)),
    "wasm_globaltype_mutability": (c_uint8, (_P,)),
    "wasm_tagtype_functype": (_P, (_P,)),
}


class Api:
    """The bound functions, one attribute each, named as in C."""

    def __init__(self, path: str) -> None:
        self.path = path
        for library, table in ((ctypes.CDLL(path), _BLOCKING), (ctypes.PyDLL(path), _QUICK)):
            for name, (restype, argtypes) in table.items():
                function = library[name]  # by item: a fresh object, whose prototype nobody else can change
                function.restype = restype
                function.argtypes = argtypes
                setattr(self, name, function)

    def raw(self, name: str) -> Callable[..., Any]:
        """The function without its prototype: for who makes all arguments as ctypes objects of the right type
        beforehand, which saves looking at each of them at every call."""
        restype, _ = _BLOCKING.get(name) or _QUICK[name]
        library = ctypes.CDLL(self.path) if name in _BLOCKING else ctypes.PyDLL(self.path)
        function = library[name]
        function.restype = restype
        return function

    def __getattr__(self, name: str) -> Callable[..., Any]:  # for the type checker: __init__ sets them all
        raise AttributeError(name)


_api: Api | None = None


def load(path: str) -> Api:
    """Bind the library at `path`, once per process."""
    global _api
    if _api is None or _api.path != path:
        _api = Api(path)
    return _api


def api() -> Api:
    """The binding that `load` made; without one, that of the installed package (ImportError as in `locate`)."""
    if _api is not None:
        return _api
    # Only who does not know the path pays for package metadata: 20 ms, and pages in every fork.
    from ..locate import wasmtime_library

    return load(wasmtime_library()[0])


_vec = struct.Struct("@NP")


def read_vec(address: int) -> tuple[int, int]:
    """(size, data) of the `wasm_*_vec_t` at `address`."""
    size, data = _vec.unpack(ctypes.string_at(address, 16))
    return size, data


def read_names(address: int) -> str:
    """The text of the borrowed `wasm_name_t` at `address`. Names are UTF-8: wasmtime has validated them."""
    size, data = read_vec(address)
    return ctypes.string_at(data, size).decode("utf-8", "replace") if size else ""


def read_pointers(address: int) -> list[int]:
    """The elements of the vector of pointers at `address`."""
    size, data = read_vec(address)
    return list((c_size_t * size).from_address(data)) if size else []


class Vec:
    """An owned `wasm_*_vec_t` to be filled by C; `release` frees what it holds."""

    __slots__ = ("_delete", "_raw", "address")

    def __init__(self, delete: Callable[[int], None]) -> None:
        self._raw = (c_size_t * 2)()
        self._delete = delete
        self.address: int = ctypes.addressof(self._raw)

    def data(self) -> bytes:
        """A copy of the bytes of a `wasm_byte_vec_t`."""
        return ctypes.string_at(self._raw[1], self._raw[0]) if self._raw[0] else b""

    def __enter__(self) -> Vec:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._raw[1]:
            self._delete(self.address)
            self._raw[0] = self._raw[1] = 0


def take_text(c: Api, error: int) -> str:
    """The message of the owned `wasmtime_error_t`, which is deleted."""
    try:
        with Vec(c.wasm_byte_vec_delete) as vec:
            c.wasmtime_error_message(error, vec.address)
            return vec.data().decode("utf-8", "replace").replace("\n\nCaused by:\n", ":\n")
    finally:
        c.wasmtime_error_delete(error)


# Only the first two fields of CPython's Py_buffer are read; the rest is room for it (80 bytes on 64-bit machines).
_py_buffer = c_size_t * 16


class buffer_address:  # noqa: N801 - a context manager, used like a function
    """`with buffer_address(buffer) as (address, size)`: borrow any buffer, a read-only mmap included, uncopied."""

    __slots__ = ("_buffer", "_view")

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self._view = _py_buffer()

    def __enter__(self) -> tuple[int, int]:
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(self._buffer), ctypes.byref(self._view), 0)
        return self._view[0], self._view[2]

    def __exit__(self, *_exc: object) -> None:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self._view))
