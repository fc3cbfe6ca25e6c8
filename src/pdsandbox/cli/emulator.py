"""A real stranger's module: the Rust terminal emulator of the PyPI package `vt100wasm`, driven over an instance.

Only the package's .wasm file is used: importing the package would compile and run it in this process. What comes
back from the module is a guest's data: its size is checked, and every cell becomes text and style one by one, so
no escape sequence of its making reaches the user's terminal.
"""

from __future__ import annotations

import importlib.metadata
import struct
from typing import TYPE_CHECKING, Any, Final

from ..imports import Caller, HostFunction, WasmImports
from ..values import I64
from .output import Failure

if TYPE_CHECKING:
    from rich.style import Style
    from rich.text import Text

    from ..interfaces import WasmInstance

__all__ = ["Emulator", "WasiStubs", "find"]

PACKAGE: Final = "vt100wasm"

_HEADER: Final = struct.Struct("<4H?7x")  # rows, columns, the cursor's row and column, whether it shows
_CELL: Final = struct.Struct("<IIIHxx")  # code point (0: empty), foreground, background, attributes
_U32: Final = 0xFFFF_FFFF
_BOLD, _DIM, _ITALIC, _UNDERLINE, _REVERSE, _WIDE, _WIDE_REST = (1 << bit for bit in range(7))
_INDEXED, _RGB = 1, 2


def find() -> tuple[bytes, str] | None:
    """The emulator's binary and its version, or None when the package is not installed."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
        file = package.locate_file(f"{PACKAGE}/_vt100.wasm")
        with open(str(file), "rb") as wasm:
            return wasm.read(), package.version
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


class WasiStubs:
    """The four WASI functions that the emulator imports, granting nothing but a bounded error log.

    They run in this process and touch the guest only through `caller`, which checks every offset.
    """

    _SUCCESS, _BADF, _INVAL = 0, 8, 28  # WASI preview 1 errno
    _LOG_BYTES = 4096
    _VECTORS = 64

    def __init__(self) -> None:
        self.log = b""

    def imports(self) -> WasmImports:
        """The functions, under the names that the module asks for."""
        i32 = "i32"
        functions = {
            "environ_sizes_get": HostFunction(self._environ_sizes_get, (i32, i32), (i32,)),
            "environ_get": HostFunction(self._environ_get, (i32, i32), (i32,)),
            "fd_write": HostFunction(self._fd_write, (i32, i32, i32, i32), (i32,)),
            "proc_exit": HostFunction(self._proc_exit, (i32,)),
        }
        return WasmImports(functions={("wasi_snapshot_preview1", name): f for name, f in functions.items()})

    def _environ_sizes_get(self, caller: Caller, count_at: int, bytes_at: int) -> int:
        caller.memory_write(count_at, bytes(4))
        caller.memory_write(bytes_at, bytes(4))
        return self._SUCCESS

    def _environ_get(self, _caller: Caller, _pointers_at: int, _bytes_at: int) -> int:
        return self._SUCCESS  # there are none

    def _fd_write(self, caller: Caller, fd: int, vectors_at: int, count: int, written_at: int) -> int:
        if fd not in (1, 2):
            return self._BADF
        if not 0 <= count <= self._VECTORS:
            return self._INVAL
        written = 0
        for start, length in struct.iter_unpack("<II", caller.memory_read(vectors_at, 8 * count)):
            self.log += caller.memory_read(start, min(length, self._LOG_BYTES - len(self.log)))
            written += length
        caller.memory_write(written_at, struct.pack("<I", written & _U32))
        return self._SUCCESS

    def _proc_exit(self, _caller: Caller, code: int) -> None:
        raise RuntimeError(f"the emulator exited with {code}")


class Emulator:
    """A screen of `rows` by `columns` inside an instance of the emulator."""

    def __init__(self, instance: WasmInstance, rows: int, columns: int) -> None:
        self._instance = instance
        self._rows, self._columns = rows, columns
        (self._handle,) = instance.call("create", [rows, columns, 0])

    def feed(self, data: bytes) -> None:
        """What a program wrote to its terminal."""
        call = self._instance.call
        (place,) = call("wasm_alloc", [len(data)])
        self._instance.memory_write(place.value & _U32, data)  # type: ignore[union-attr]
        call("process", [self._handle, place, len(data)])
        call("wasm_dealloc", [place, len(data)])

    def screen(self) -> Text:
        """The screen as it stands, with its colours and its cursor. Failure when the guest's answer is no screen."""
        cells, (cursor_row, cursor_column, shows) = self._cells()
        from rich.text import Text

        text = Text(no_wrap=True, overflow="crop", end="")
        styles = _Styles()
        for row in range(self._rows):
            run, last = "", styles.style(0, 0, 0)
            for column in range(self._columns):
                code, foreground, background, flags = cells[row * self._columns + column]
                if flags & _WIDE_REST:
                    continue
                if shows and (row, column) == (cursor_row, cursor_column):
                    flags ^= _REVERSE
                style = styles.style(foreground, background, flags)
                if style != last:
                    text.append(run, last)
                    run, last = "", style
                run += _character(code, 2 if flags & _WIDE else 1)
            text.append(run, last).append("\n" if row < self._rows - 1 else "")
        return text

    def _cells(self) -> tuple[list[tuple[int, int, int, int]], tuple[int, int, bool]]:
        (packed,) = self._instance.call("screen_cells", [self._handle])
        both = packed.value if isinstance(packed, I64) else 0
        place, length = both >> 32 & _U32, both & _U32
        if length != _HEADER.size + _CELL.size * self._rows * self._columns:
            raise _not_a_screen(f"{length} bytes")
        data = self._instance.memory_read(place, length)
        rows, columns, cursor_row, cursor_column, shows = _HEADER.unpack_from(data)
        if (rows, columns) != (self._rows, self._columns):
            raise _not_a_screen(f"{rows} by {columns}")
        return list(_CELL.iter_unpack(data[_HEADER.size :])), (cursor_row, cursor_column, shows)


def _not_a_screen(what: str) -> Failure:
    return Failure(f"the emulator's answer is not the screen: {what}", code=1, kind="DemoError", cause="demo")


def _character(code: int, width: int) -> str:
    """One cell's text: what does not print, or not in `width` columns, becomes a replacement of that width."""
    from rich.cells import cell_len

    if code == 0:
        return " " * width
    char = chr(code) if code <= 0x10FFFF else "\0"
    return char if char.isprintable() and cell_len(char) == width else "?" * width


class _Styles:
    """rich styles by raw cell attributes, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int], Style] = {}

    def style(self, foreground: int, background: int, flags: int) -> Style:
        from rich.style import Style

        key = (foreground, background, flags & (_WIDE - 1))
        if key not in self._made:
            self._made[key] = Style(
                color=_colour(foreground),
                bgcolor=_colour(background),
                bold=bool(flags & _BOLD) or None,
                dim=bool(flags & _DIM) or None,
                italic=bool(flags & _ITALIC) or None,
                underline=bool(flags & _UNDERLINE) or None,
                reverse=bool(flags & _REVERSE) or None,
            )
        return self._made[key]


def _colour(raw: int) -> Any:
    from rich.color import Color

    kind, red, green, blue = raw >> 24, raw >> 16 & 0xFF, raw >> 8 & 0xFF, raw & 0xFF
    if kind == _INDEXED:
        return Color.from_ansi(red)  # the index lies where red does
    return Color.from_rgb(red, green, blue) if kind == _RGB else None
