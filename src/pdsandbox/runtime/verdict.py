"""Turns what wasmtime hands back, a trap or an error, into one of our errors, and frees it.

Messages are fixed sentences: what the guest could have chosen is only in `frames`, cut. Knows nothing of stores.
"""

from __future__ import annotations

import ctypes
from typing import Final

from ..errors import (
    TRAP_SENTENCES,
    UNKNOWN_TRAP,
    CallError,
    Frame,
    FuelExhausted,
    GuestExit,
    InstantiationError,
    MemoryAccessError,
    Trap,
    TrapCode,
    WasmError,
)
from . import capi

__all__ = ["from_error", "from_trap", "while_instantiating"]

# A backtrace is as deep as the guest's recursion; the innermost frames tell what happened.
MAX_FRAMES: Final = 64
MAX_NAME: Final = 256

_CODES = {code.value: code for code in TrapCode}


def from_trap(c: capi.Api, trap: int, *, uncaught: bool) -> WasmError:
    """The error for the owned `wasm_trap_t`, which is deleted. `uncaught`: an exception was pending in the store."""
    try:
        code = ctypes.c_uint8()
        known: TrapCode | None = None
        if c.wasmtime_trap_code(trap, ctypes.addressof(code)):
            known = _CODES.get(code.value)
        elif uncaught:
            known = TrapCode.UNCAUGHT_EXCEPTION
        if known is TrapCode.OUT_OF_FUEL:
            return FuelExhausted()
        sentence = TRAP_SENTENCES[known] if known else UNKNOWN_TRAP
        return Trap(sentence, trap_code=known, frames=_frames(c, c.wasm_trap_trace, trap))
    finally:
        c.wasm_trap_delete(trap)


def from_error(c: capi.Api, error: int) -> tuple[str, tuple[Frame, ...]]:
    """(message, frames) of the owned `wasmtime_error_t`, which is deleted."""
    frames = _frames(c, c.wasmtime_error_wasm_trace, error)
    return capi.take_text(c, error), frames


def _frames(c: capi.Api, trace: object, source: int) -> tuple[Frame, ...]:
    with capi.Vec(c.wasm_frame_vec_delete) as vec:
        trace(source, vec.address)  # type: ignore[operator]
        return tuple(
            [
                Frame(
                    c.wasm_frame_func_index(item),
                    _name(c.wasmtime_frame_func_name(item)),
                    _name(c.wasmtime_frame_module_name(item)),
                    c.wasm_frame_func_offset(item),
                    c.wasm_frame_module_offset(item),
                )
                for item in capi.read_pointers(vec.address)[:MAX_FRAMES]
            ]
        )


def _name(address: int | None) -> str | None:
    return capi.read_names(address)[:MAX_NAME] if address else None


def while_instantiating(error: BaseException) -> BaseException:
    """Fuel and guest exits keep their class while instantiating; the rest is an InstantiationError with their data."""
    if isinstance(error, Trap) and not isinstance(error, GuestExit):
        # No function was running: a data or element segment did not fit.
        what = "start function trapped" if error.frames else "active segment"
        return InstantiationError(
            f"{what}: {error.message}",
            cause=error.cause,
            trap_code=error.trap_code,
            frames=error.frames,
        )
    if isinstance(error, CallError | MemoryAccessError):
        ours = InstantiationError(f"start function: {error.message}", cause=error.cause, limit=error.limit)
        ours.__cause__ = error.__cause__ or error
        return ours
    return error
