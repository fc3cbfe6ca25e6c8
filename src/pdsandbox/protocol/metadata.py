"""How types of imports and exports, and backtrace frames, lie in bytes. Counts are capped, names are UTF-8."""

from __future__ import annotations

from typing import Final

from ..errors import Frame
from ..externs import ExportType, ExternType, FuncType, GlobalType, ImportType, MemoryType, TableType, TagType
from .codec import ProtocolError, Reader, Writer

#: All imports and exports of one module together; a compiler refuses a module beyond it. 10,000 exports take 0.3 MiB;
#: the costliest 4 MiB keep the supervisor busy for a second.
METADATA_CAP: Final = 4 << 20
MAX_ENTRIES: Final = 100_000
# wasmparser allows 1,000 parameters and 1,000 results.
MAX_TYPES: Final = 1000

TYPE_NAMES: Final = ("i32", "i64", "f32", "f64", "v128", "funcref", "externref", "ref")
_TYPE_CODES: Final = {name: code for code, name in enumerate(TYPE_NAMES)}


def _write_types(w: Writer, types: tuple[str, ...]) -> None:
    w.data(bytes(_TYPE_CODES[name] for name in types))


def _read_types(r: Reader) -> tuple[str, ...]:
    codes = r.data()
    if len(codes) > MAX_TYPES or (codes and max(codes) >= len(TYPE_NAMES)):
        raise ProtocolError("not a list of value types")
    return tuple([TYPE_NAMES[code] for code in codes])


def write_func_type(w: Writer, type_: FuncType) -> None:
    _write_types(w, type_.params)
    _write_types(w, type_.results)


def read_func_type(r: Reader) -> FuncType:
    return FuncType(_read_types(r), _read_types(r))


def _write_extern(w: Writer, type_: ExternType) -> None:
    if isinstance(type_, FuncType):
        w.u8(0)
        write_func_type(w, type_)
    elif isinstance(type_, MemoryType):
        w.u8(1)
        # A 64-bit memory may have 2**64 bytes of one-byte pages: u64 with a flag, not the i64 of `optional`.
        w.u64(type_.minimum)
        w.u8(type_.maximum is not None)
        w.u64(type_.maximum or 0)
        w.u8(type_.is_64)
        w.u8(type_.shared)
        w.u32(type_.page_bytes)
    elif isinstance(type_, TableType):
        w.u8(2)
        w.u8(_TYPE_CODES[type_.element])
        w.u64(type_.minimum)
        w.u8(type_.maximum is not None)
        w.u64(type_.maximum or 0)
    elif isinstance(type_, GlobalType):
        w.u8(3)
        w.u8(_TYPE_CODES[type_.content])
        w.u8(type_.mutable)
    else:
        w.u8(4)
        _write_types(w, type_.params)


def _read_extern(r: Reader) -> ExternType:
    tag = r.choice(5)
    if tag == 0:
        return read_func_type(r)
    if tag == 1:
        minimum, bounded, maximum = r.u64(), r.flag(), r.u64()
        return MemoryType(minimum, maximum if bounded else None, r.flag(), r.flag(), r.u32())
    if tag == 2:
        element = TYPE_NAMES[r.choice(len(TYPE_NAMES))]
        minimum, bounded, maximum = r.u64(), r.flag(), r.u64()
        return TableType(element, minimum, maximum if bounded else None)
    if tag == 3:
        return GlobalType(TYPE_NAMES[r.choice(len(TYPE_NAMES))], r.flag())
    return TagType(_read_types(r))


def write_imports(w: Writer, imports: tuple[ImportType, ...]) -> None:
    def one(item: ImportType) -> None:
        w.text(item.module)
        w.text(item.name)
        _write_extern(w, item.type)

    w.many(imports, one)


def read_imports(r: Reader) -> tuple[ImportType, ...]:
    return tuple(r.many(lambda: ImportType(r.text(), r.text(), _read_extern(r)), 11, MAX_ENTRIES))


def write_exports(w: Writer, exports: tuple[ExportType, ...]) -> None:
    def one(item: ExportType) -> None:
        w.text(item.name)
        _write_extern(w, item.type)

    w.many(exports, one)


def read_exports(r: Reader) -> tuple[ExportType, ...]:
    return tuple(r.many(lambda: ExportType(r.text(), _read_extern(r)), 7, MAX_ENTRIES))


def write_frame(w: Writer, f: Frame) -> None:
    w.u32(f.func_index)
    w.u8((f.func_name is not None) | (f.module_name is not None) << 1)
    for name in (f.func_name, f.module_name):
        if name is not None:
            w.text(name)
    w.u64(f.func_offset)
    w.u64(f.module_offset)


def read_frame(r: Reader) -> Frame:
    index, which = r.u32(), r.choice(4)
    func_name = r.text() if which & 1 else None
    module_name = r.text() if which & 2 else None
    return Frame(index, func_name, module_name, r.u64(), r.u64())
