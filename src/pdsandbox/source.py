"""A module's source as the user gives it: which format it is, and the mistakes that its first eight bytes give away.

In plain words, where wasmtime explains badly or takes it without a word. Parses nothing. Pure; every host uses it.
"""

from __future__ import annotations

from .errors import CompileError

__all__ = ["check_header", "source_of"]

_MAGIC = b"\0asm"
_VERSION = b"\x01\0\0\0"


def source_of(wasm: object, module_bytes: int) -> tuple[bytes, bool]:
    """(source, whether it is the text format). TypeError for what is neither bytes nor str (a path is never opened);
    CompileError for more than `module_bytes`, and for bytes that cannot be a module."""
    if isinstance(wasm, str):
        try:
            source, text = wasm.encode("utf-8"), True
        except UnicodeEncodeError as exc:
            raise CompileError("the text holds a lone surrogate, which UTF-8 cannot carry") from exc
    elif isinstance(wasm, bytes | bytearray | memoryview):
        source, text = bytes(wasm), False
    else:
        raise TypeError(f"compile takes bytes (the binary format) or str (the text format), not {type(wasm).__name__}")
    if len(source) > module_bytes:
        size = f"the source has {len(source):,} bytes; module_bytes allows {module_bytes:,}"
        raise CompileError(size, limit=module_bytes, observed=len(source))
    if not text:
        check_header(source)
    return source, text


def check_header(binary: bytes, *, text: bool = False) -> None:
    """CompileError unless this may be a core module in the binary format; `text`: it was assembled from that."""
    if not binary:
        raise CompileError("the module is empty")
    if not binary.startswith(_MAGIC[: len(binary)]):
        hint = "; pass the text format as str" if _looks_like_text(binary) else ""
        raise CompileError(f"not a WebAssembly binary: it does not start with \\0asm{hint}")
    if len(binary) < 8:
        raise CompileError(f"truncated: {len(binary)} of the header's 8 bytes")
    if binary[6:8] == b"\x01\0":  # the `layer` field of the component model's preamble
        raise CompileError("this is a component, not a module" + ("" if text else "; only core modules are supported"))
    if binary[4:8] != _VERSION:
        raise CompileError(f"unknown binary version 0x{int.from_bytes(binary[4:8], 'little'):08x}; 1 is supported")


def _looks_like_text(binary: bytes) -> bool:
    return binary[:4096].lstrip().startswith((b"(", b";;"))
