"""Whether all tables of a binary have limits below 2**32: asked before wasmtime's C API may be, because it aborts.

Reads the import and table sections of a module that wasmtime has already validated. Whatever it does not understand
counts as "no". Knows nothing of engines.
"""

from __future__ import annotations

__all__ = ["tables_are_small"]

_IMPORT, _TABLE = 2, 4
# Constant expressions that initialise a table: opcode -> number of LEB128 operands.
_CONSTANT = {0x41: 1, 0x42: 1, 0x23: 1, 0xD0: 1, 0xD2: 1}
_END = 0x0B


class _Doubt(Exception):
    """Something that this reader does not know."""


class _Cursor:
    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def leb(self) -> int:
        """An unsigned LEB128; of a signed one, only its end matters here."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def skip_name(self) -> None:
        length = self.leb()
        self.at += length

    def skip_valtype(self) -> None:
        if self.byte() in (0x63, 0x64):  # (ref null ht), (ref ht)
            self.leb()

    def table_is_small(self) -> bool:
        self.skip_valtype()
        flags = self.byte()
        if flags & ~0x07:
            raise _Doubt
        limits = [self.leb() for _ in range(1 + (flags & 1))]
        return all(limit < 1 << 32 for limit in limits)


def tables_are_small(binary: bytes) -> bool:
    """True when every table, imported or defined, has its limits below 2**32."""
    cursor = _Cursor(binary, 8)
    try:
        while cursor.at < len(binary):
            section, size = cursor.byte(), cursor.leb()
            end = cursor.at + size
            if section == _IMPORT and not _imports_small(cursor, end):
                return False
            if section == _TABLE and not _section_small(cursor, end):
                return False
            cursor.at = end
    except (_Doubt, IndexError):
        return False
    return True


def _imports_small(cursor: _Cursor, end: int) -> bool:
    for _ in range(cursor.leb()):
        cursor.skip_name()
        cursor.skip_name()
        kind = cursor.byte()
        if kind == 0:
            cursor.leb()
        elif kind == 1:
            if not cursor.table_is_small():
                return False
        elif kind == 2:
            flags = cursor.byte()
            for _ in range(1 + (flags & 1) + (flags >> 3 & 1)):  # minimum, maximum, page size
                cursor.leb()
        elif kind == 3:
            cursor.skip_valtype()
            cursor.byte()
        elif kind == 4:
            cursor.byte()
            cursor.leb()
        else:
            raise _Doubt
    if cursor.at != end:
        raise _Doubt
    return True


def _section_small(cursor: _Cursor, end: int) -> bool:
    for _ in range(cursor.leb()):
        initialised = cursor.data[cursor.at] == 0x40
        if initialised:
            cursor.at += 2
        if not cursor.table_is_small():
            return False
        if initialised:
            while (opcode := cursor.byte()) != _END:
                for _ in range(_CONSTANT[opcode] if opcode in _CONSTANT else _unknown()):
                    cursor.leb()
    if cursor.at != end:
        raise _Doubt
    return True


def _unknown() -> int:
    raise _Doubt
