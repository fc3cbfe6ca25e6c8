"""The one entry from C into Python: finds the host function, and lets nothing escape.

An exception that leaves a ctypes callback is printed and ignored, and what C then takes for a trap pointer is
garbage: the process crashes. So everything is caught, kept as `pending`, and a trap returned in its place. This
module knows neither stores nor what the functions do.
"""

from __future__ import annotations

import types
from collections.abc import Callable

from . import capi

__all__ = ["Switch"]

_TRAP_CODE = 9  # UNREACHABLE; any code will do, the pending exception decides


class Switch:
    """The host functions of one guest behind one C callback.

    pending  what a host function raised; whoever made the guest run takes it
    caller   the `wasmtime_caller_t` of the host call that is running, else 0
    spare    a trap made beforehand: the handler that returns it must not call anything (see `_guarded`)
    """

    __slots__ = ("_c", "_functions", "callback", "caller", "pending", "spare")

    def __init__(self, c: capi.Api) -> None:
        self._c = c
        self._functions: list[Callable[[int], None]] = []
        self.pending: BaseException | None = None
        self.caller = 0
        self.spare: int | None = None
        self.callback = capi.HostCallback(_entry(self, self._functions))

    def add(self, fn: Callable[[int], None]) -> int:
        """The number under which the callback's `env` names `fn`."""
        if self.spare is None:
            self.refill()
        self._functions.append(fn)
        return len(self._functions) - 1

    def refill(self) -> None:
        """Have a trap ready."""
        self.spare = self._c.wasmtime_trap_new_code(_TRAP_CODE)

    def take(self) -> BaseException | None:
        """The pending exception, if any; ready for the next."""
        pending, self.pending = self.pending, None
        if self.spare is None and self._functions:
            self.refill()
        return pending

    def close(self) -> None:
        """Drop the functions, which refer back to the guest; another may use it then. Only when C can call no more."""
        self._functions.clear()
        self.pending = None
        spare, self.spare = self.spare, None
        if spare is not None:
            self._c.wasm_trap_delete(spare)


def _entry(switch: Switch, functions: list[Callable[[int], None]]) -> Callable[[int, int, int, int], int | None]:
    def enter(env: int, caller: int, slots: int, _count: int) -> int | None:
        try:
            switch.caller = caller
            functions[env](slots)
            switch.caller = 0
        except BaseException as exc:
            # No call in here: after a call the interpreter looks for signals, and a second Ctrl-C would escape.
            switch.caller = 0
            switch.pending = exc
            trap = switch.spare
            switch.spare = None
            return trap
        return None

    return types.FunctionType(_guarded(enter.__code__), enter.__globals__, "enter", None, enter.__closure__)


_guarded_code: types.CodeType | None = None


def _guarded(code: types.CodeType) -> types.CodeType:
    """`code` with its `try` stretched over the function's very first instruction.

    That one, RESUME, runs pending signal handlers: Ctrl-C pressed while the guest computes is raised there, when the
    guest next calls a host function, before any `try` that Python can write. (Measured: without this, a crash each
    time.) The exception table is a list of entries (start, length, target, depth), as CPython's
    Objects/exception_handling_notes.txt describes it, from 3.11 to 3.14. One that looks otherwise is left alone.
    """
    global _guarded_code
    if _guarded_code is None:
        table = code.co_exceptiontable
        start, length, rest = _first_entry(table)
        if 0 < start < 8:
            table = bytes([*_varint(0, 0x80), *_varint(start + length)]) + table[rest:]
        _guarded_code = code.replace(co_exceptiontable=table)
    return _guarded_code


def _first_entry(table: bytes) -> tuple[int, int, int]:
    """(start, length, index of what follows the two); six bits a byte, 0x40 marks that more follow."""
    values: list[int] = []
    at = 0
    while len(values) < 2 and at < len(table):
        value = table[at] & 0x3F
        while table[at] & 0x40:
            at += 1
            value = value << 6 | table[at] & 0x3F
        at += 1
        values.append(value)
    return (values[0], values[1], at) if len(values) == 2 else (0, 0, 0)


def _varint(value: int, first: int = 0) -> list[int]:
    groups = [value & 0x3F]
    while value := value >> 6:
        groups.append(value & 0x3F | 0x40)
    groups.reverse()
    groups[0] |= first
    return groups
