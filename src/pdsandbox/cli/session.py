"""What `run` does: read, compile, choose the export, type the arguments, call. Prints nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CallError, Cause, InstantiationError, WasmError
from . import hosts, numbers
from .output import Failure, printable
from .report import error_json
from .source import read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..externs import FuncType
    from ..interfaces import WasmInstance, WasmModule
    from ..limits import Limits
    from ..values import WasmVal

__all__ = ["Outcome", "run"]

# A list of functions in an error is for choosing from; `inspect` shows all.
_LISTED = 12


@dataclass(slots=True)
class Outcome:
    """How one call ended. `wall_s` is the call alone, as measured here; None when it was not reached."""

    file: str
    export: str | None = None
    results: list[WasmVal] | None = None
    error: WasmError | Failure | None = None
    fuel_consumed: int | None = None
    wall_s: float | None = None
    pid: int | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "ok": self.error is None,
            "file": self.file,
            "export": self.export,
            "results": None if self.results is None else [numbers.plain(value) for value in self.results],
            "error": None if self.error is None else error_json(self.error),
            "fuel_consumed": self.fuel_consumed,
            "wall_s": self.wall_s,
            "compile_s": self.timings.get("compile_s"),
            "instantiate_s": self.timings.get("instantiate_s"),
            "pid": self.pid,
        }


def run(file: str, export: str | None, args: tuple[str, ...], limits: Limits, hardening: str = "default") -> Outcome:
    """Call `export` of the module in `file`; every failure that is not a bug ends up in the outcome."""
    outcome = Outcome(file)
    try:
        source = read_source(file, limits.module_bytes)
        with hosts.open_host(limits, hardening) as host:
            begun = time.perf_counter()
            module = host.compile(source.code)
            outcome.timings["compile_s"] = time.perf_counter() - begun
            refuse_wasi(module)
            outcome.export, signature = choose(module, export)
            values = typed(outcome.export, signature, args)
            begun = time.perf_counter()
            instance = host.instantiate(module)
            outcome.timings["instantiate_s"] = time.perf_counter() - begun
            with instance:
                outcome.pid = instance.pid
                _call(instance, values, outcome)
    except (WasmError, Failure) as exc:
        outcome.error = exc
        outcome.pid = outcome.pid or getattr(exc, "pid", None)
    return outcome


def _call(instance: WasmInstance, values: list[WasmVal], outcome: Outcome) -> None:
    assert outcome.export is not None
    begun = time.perf_counter()
    try:
        outcome.results = instance.call(outcome.export, values)
    except WasmError as exc:
        outcome.error = exc
    outcome.wall_s = time.perf_counter() - begun
    try:
        outcome.fuel_consumed = instance.fuel_consumed()
    except WasmError:  # the worker is gone and took the figure with it
        pass


def choose(module: WasmModule, export: str | None) -> tuple[str, FuncType]:
    """The export to call and its type: the one named, else `_start`, else the only function. CallError otherwise."""
    functions = hosts.function_exports(module)
    if export is not None:
        if export in functions:
            return export, functions[export]
        if export in module.exports():
            raise CallError(f"export '{printable(export)}' is not a function; {_choice(functions)}")
        raise CallError(f"no export '{printable(export)}'; {_choice(functions)}")
    if "_start" in functions:
        return "_start", functions["_start"]
    if len(functions) == 1:
        return next(iter(functions.items()))
    if not functions:
        raise CallError("the module exports no function")
    raise CallError(f"name the export to call; {_choice(functions)}")


def _choice(functions: Mapping[str, FuncType]) -> str:
    if not functions:
        return "the module exports no function"
    shown = [f"{printable(name, 60)} {kind}" for name, kind in list(functions.items())[:_LISTED]]
    more = len(functions) - len(shown)
    return "functions: " + ", ".join(shown) + (f" and {more:,} more" if more else "")


def typed(export: str, signature: FuncType, args: tuple[str, ...]) -> list[WasmVal]:
    """`args` by the signature's parameter types. CallError for what does not fit."""
    if signature.unsupported:
        raise CallError(f"unsupported type {signature.unsupported} in the signature")
    if len(args) != len(signature.params):
        count = len(signature.params)
        wanted = f"{count} argument{'' if count == 1 else 's'}"
        raise CallError(f"{printable(export)} {signature} takes {wanted}, got {len(args)}")
    values = []
    for index, (kind, text) in enumerate(zip(signature.params, args, strict=True)):
        try:
            values.append(numbers.parse(kind, text))
        except ValueError as exc:
            raise CallError(f"argument {index + 1}: {exc}") from None
    return values


def refuse_wasi(module: WasmModule) -> None:
    """InstantiationError for a module that imports WASI: said before a worker is started for nothing."""
    wanted = [item for item in module.imports() if hosts.is_wasi(item)]
    if wanted:
        names = ", ".join(printable(item.name, 40) for item in wanted[:4])
        more = f" and {len(wanted) - 4:,} more" if len(wanted) > 4 else ""
        raise InstantiationError(
            f"the module imports WASI, which workers do not offer yet: {names}{more}", cause=Cause.LINK
        )
