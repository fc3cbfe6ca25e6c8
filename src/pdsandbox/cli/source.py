"""FILE on the command line: bytes of a binary module or text of a text module, and one clear line for what is neither.

Only the first bytes are looked at here: parsing a stranger's module is a compiler process's work. Never reads
more than the compiler would take, so a device or an endless pipe cannot fill this process.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from dataclasses import dataclass
from typing import Final

from ..errors import Cause
from .exits import BAD_FILE, EXIT_CODES
from .output import Failure, printable

__all__ = ["Source", "read_source"]

MAGIC: Final = b"\0asm"
_MODULE: Final = (1).to_bytes(4, "little")  # version 1, layer 0; the component model sets the layer to 1
# White space and comments of the text format, before the first parenthesis.
_BLANK: Final = re.compile(r"(?:\s+|;;[^\n]*(?:\n|\Z)|\(;.*?;\))*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """A module as read: `code` is bytes (binary format) or str (text format), as hosts take it."""

    shown: str  #: the file's name, safe to print
    code: bytes | str
    size: int


def read_source(name: str, most: int) -> Source:
    """Read the module in the file `name` ("-": standard input), of at most `most` bytes. Raises Failure."""
    shown = "standard input" if name == "-" else printable(name)
    data = _read(name, shown, most + 1)
    if len(data) > most:
        raise _bad(f"{shown} is larger than {most:,} bytes, the limit for a module")
    if not data:
        raise _bad(f"{shown} is empty")
    extension = os.path.splitext(name)[1].lower()
    if data.startswith(MAGIC) or MAGIC.startswith(data):
        return Source(shown, _binary(shown, data, extension), len(data))
    return Source(shown, _text(shown, data, extension), len(data))


def _read(name: str, shown: str, most: int) -> bytes:
    try:
        if name == "-":
            if sys.stdin is None:
                raise _unreadable("standard input is closed")
            return sys.stdin.buffer.read(most)
        with open(name, "rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise _unreadable(f"{shown} is a directory")
            return file.read(most)
    except FileNotFoundError as exc:
        raise _unreadable(f"no such file: {shown}") from exc
    except IsADirectoryError as exc:
        raise _unreadable(f"{shown} is a directory") from exc
    except PermissionError as exc:
        raise _unreadable(f"no permission to read {shown}") from exc
    except OSError as exc:
        reason = exc.strerror or errno.errorcode.get(exc.errno or 0, "input/output error")
        raise _unreadable(f"cannot read {shown}: {reason}") from exc
    except ValueError as exc:  # a NUL in the name
        raise _unreadable(f"cannot read {shown}: {printable(str(exc))}") from exc


def _binary(shown: str, data: bytes, extension: str) -> bytes:
    if len(data) < 8:
        raise _bad(f"{shown} is truncated: {len(data)} bytes, shorter than a module's header")
    if data[4:8] != _MODULE:
        if data[6:8] == b"\1\0":
            hint = "extract its core module first, for example with `wasm-tools component unbundle`"
            raise _bad(f"{shown} is a WebAssembly component, and pdsandbox runs core modules", hint)
        raise _bad(f"{shown} has WebAssembly version {int.from_bytes(data[4:8], 'little')}, and only 1 is known")
    if extension == ".wat":
        raise _bad(f"{shown} holds the binary format", "rename it to .wasm")
    return data


def _text(shown: str, data: bytes, extension: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if extension == ".wat":
            raise _bad(f"{shown} is not text: it is not valid UTF-8") from None
        text = ""
    blank = _BLANK.match(text)
    start = blank.end() if blank else 0
    if re.compile(r"\(\s*component\b").match(text, start):
        raise _bad(f"{shown} is a WebAssembly component, and pdsandbox runs core modules")
    if extension == ".wat":
        return text
    if not text.startswith("(", start):
        first = data[:4].hex(" ")
        raise _bad(f"{shown} is not a WebAssembly module: it starts with {first}, not with 00 61 73 6d")
    if extension == ".wasm":
        raise _bad(f"{shown} holds the text format, not the binary format", "rename it to .wat")
    return text


def _unreadable(message: str) -> Failure:
    return Failure(message, code=BAD_FILE, kind="FileError", cause="file")


def _bad(message: str, hint: str | None = None) -> Failure:
    code = EXIT_CODES[Cause.COMPILE]
    return Failure(message, code=code, kind="CompileError", cause=Cause.COMPILE.value, hint=hint)
