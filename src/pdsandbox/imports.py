"""What a host offers to a guest: the three `pd_*` callbacks, host functions, and where each one runs.

Data and checks only. A callback runs in the supervisor, in the thread of the call, unless it is wrapped by
`in_worker`. Linking (matching offers to a module's imports) happens next to the engine.
"""

from __future__ import annotations

import functools
import os
from _thread import allocate_lock  # the fork server imports this: threading's own fork hook costs 130 page faults
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from .externs import NUMBER_TYPES, FuncType

__all__ = ["Caller", "HostFunction", "InWorker", "WasmImports", "in_worker"]

#: Import modules under which a guest finds `pd_send`, `pd_now_micros` and `pd_log`.
PD_MODULES: Final = ("env", "pd")
PD_TYPES: Final[Mapping[str, FuncType]] = MappingProxyType(
    {
        "pd_send": FuncType(("i32", "i32", "i32", "i32"), ("i32",)),
        "pd_now_micros": FuncType((), ("i64",)),
        "pd_log": FuncType(("i32", "i32", "i32"), ()),
    }
)


class Caller(Protocol):
    """The instance that called a host function; valid only until that function returns."""

    def memory_read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` (modulo 2**32) of the guest's memory; MemoryAccessError outside it."""

    def memory_write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset` (modulo 2**32) of the guest's memory; MemoryAccessError outside it."""


class InWorker:
    """A callable shipped to the worker by value; made by `in_worker`. Calling it here calls the original."""

    __slots__ = ("fn", "name", "pickled")

    def __init__(self, fn: Callable[..., Any], pickled: bytes) -> None:
        self.fn = fn
        self.name = _name_of(fn)
        self.pickled = pickled

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)

    def __repr__(self) -> str:
        return f"in_worker({self.name})"


# cloudpickle's by-value registry is global to the process: two threads must not interleave in it.
_by_value_lock = allocate_lock()


def _renew_lock() -> None:
    """In a forked child: the thread that may hold the lock is not here to give it back."""
    global _by_value_lock
    _by_value_lock = allocate_lock()


os.register_at_fork(after_in_child=_renew_lock)


def in_worker(fn: Callable[..., Any]) -> InWorker:
    """Ship `fn` to the worker with cloudpickle, by value, to run inside the sandbox instead of in this process.

    The worker gets a copy: changes to globals or closures stay there. Modules that `fn` refers to by a global
    name are imported before the worker locks itself down; an `import` statement inside its body may fail.
    Raises TypeError, naming the function, when it cannot be pickled.
    """
    import cloudpickle

    if not callable(fn):
        raise TypeError(f"in_worker takes a function, not {type(fn).__name__}")
    module = _importable_module(fn)
    with _by_value_lock:
        registered = module is not None and module.__name__ not in cloudpickle.list_registry_pickle_by_value()
        if registered:
            cloudpickle.register_pickle_by_value(module)
        try:
            pickled = cloudpickle.dumps(fn)
        except Exception as exc:
            raise TypeError(f"in_worker: {_name_of(fn)} cannot be pickled: {exc}") from exc
        finally:
            if registered:
                cloudpickle.unregister_pickle_by_value(module)
    return InWorker(fn, pickled)


def _importable_module(fn: Callable[..., Any]) -> Any:
    """The module to pickle by value with `fn`: the user's own, never one that the worker has as well."""
    import sys

    name = getattr(_unwrapped(fn), "__module__", None)
    if not name or name == "__main__" or name.partition(".")[0] in sys.stdlib_module_names:
        return None
    return sys.modules.get(name)


def _unwrapped(fn: object) -> object:
    """What a `functools.partial` calls in the end: that is the user's function, and the name to tell."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _name_of(fn: object) -> str:
    fn = _unwrapped(fn)
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function offered to the guest: `fn(caller, *args)` with the given parameter and result types.

    Types are "i32", "i64", "f32" or "f64"; integers arrive signed, floats as Python floats. `fn` returns None
    for no result, a plain number (or `WasmVal`) for one, a tuple for several. Anything it raises ends the call
    with `CallError`, cause HOST_FUNCTION. Raises TypeError or ValueError for what cannot be a host function.
    """

    fn: Callable[..., Any]
    params: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"HostFunction takes a function, not {type(self.fn).__name__}")
        for name in ("params", "results"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise TypeError(f"HostFunction.{name} takes a tuple of type names, such as ('i32',), not {given!r}")
            types = tuple(given)
            for item in types:
                if item not in NUMBER_TYPES:
                    raise ValueError(f"HostFunction.{name}: {item!r} is not one of {', '.join(NUMBER_TYPES)}")
            object.__setattr__(self, name, types)

    @property
    def type(self) -> FuncType:
        """The function's type."""
        return FuncType(self.params, self.results)


@dataclass(frozen=True, slots=True)
class Offer:
    """What answers one import. `pd` names the built-in convention of pd_send, pd_now_micros or pd_log, else None.

    `fn` None is the no-op stub of that convention.
    """

    type: FuncType
    fn: Callable[..., Any] | None
    pd: str | None = None


class WasmImports:
    """Everything a guest may call. Without arguments: the three `pd_*` functions as no-op stubs, nothing else.

    pd_send(envelope: bytes, payload: bytes) -> int    0, or negative on error; stub: 0
    pd_now_micros() -> int                             microseconds, taken modulo 2**64; stub: 0
    pd_log(level: int, message: bytes) -> None         stub: nothing
    functions                                          (module, name) -> `HostFunction`; wins over `pd_*`

    The guest sees `pd_send(i32, i32, i32, i32) -> i32`, `pd_now_micros() -> i64` and `pd_log(i32, i32, i32)` under
    the import modules `env` and `pd`; its pointers are unsigned, checked, and copied before a callback sees bytes.
    """

    __slots__ = ("_functions", "_pd")

    def __init__(
        self,
        *,
        pd_send: Callable[[bytes, bytes], int] | None = None,
        pd_now_micros: Callable[[], int] | None = None,
        pd_log: Callable[[int, bytes], None] | None = None,
        functions: Mapping[tuple[str, str], HostFunction] | None = None,
    ) -> None:
        pd = {"pd_send": pd_send, "pd_now_micros": pd_now_micros, "pd_log": pd_log}
        for name, fn in pd.items():
            if fn is not None and not callable(fn):
                raise TypeError(f"WasmImports.{name} takes a function, not {type(fn).__name__}")
        checked: dict[tuple[str, str], HostFunction] = {}
        given: dict[object, object] = dict(functions or {})
        for key, function in given.items():
            if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)):
                raise TypeError(f"WasmImports.functions: keys are (module, name), not {key!r}")
            if not isinstance(function, HostFunction):
                kind = type(function).__name__
                raise TypeError(f"WasmImports.functions[{key!r}] must be a HostFunction, not {kind}")
            checked[key] = function
        self._pd = pd
        self._functions = MappingProxyType(checked)

    @property
    def functions(self) -> Mapping[tuple[str, str], HostFunction]:
        """The host functions, read-only."""
        return self._functions

    def with_pd_send(self, pd_send: Callable[[bytes, bytes], int]) -> WasmImports:
        """The same, with a `pd_send`; ValueError if there is one."""
        if self._pd["pd_send"] is not None:
            raise ValueError("imports have a pd_send of their own")
        offers = WasmImports(pd_send=pd_send, functions=self._functions)
        offers._pd = {**self._pd, "pd_send": pd_send}
        return offers

    @property
    def pd(self) -> Mapping[str, Callable[..., Any] | None]:
        """`pd_send`, `pd_now_micros` and `pd_log` by name; None: the stub."""
        return MappingProxyType(self._pd)

    def offer(self, module: str, name: str) -> Offer | None:
        """What answers the import `module`.`name`, or None."""
        function = self._functions.get((module, name))
        if function is not None:
            return Offer(function.type, function.fn)
        if module in PD_MODULES and name in PD_TYPES:
            return Offer(PD_TYPES[name], self._pd[name], name)
        return None
