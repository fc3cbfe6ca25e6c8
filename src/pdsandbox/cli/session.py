"""What `run` does: read, compile, find out what is to be run, grant it what was said, run it. Prints nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import CallError, GuestExit, WasmError
from ..interfaces import Capability
from . import hosts
from .main import BEGUN
from .output import Failure, printable
from .source import read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..externs import FuncType
    from ..interfaces import WasmInstance, WasmModule
    from ..limits import Limits
    from ..values import WasmVal
    from ..wasi import Wasi
    from .options import Line

__all__ = ["PROGRAM_WALL_S", "Outcome", "Task", "run", "task_of"]

#: A program may run longer than a function that a service calls, and without a budget of fuel; yet somebody else's
#: does not keep a core of an unattended machine for ever.
PROGRAM_WALL_S: Final = 600.0
START: Final = "_start"
# A list of functions in an error is for choosing from; `inspect` shows all.
_LISTED: Final = 12


class Task(NamedTuple):
    """What is to be run. `program`: as a command, to which `words` are arguments; else a function of this type."""

    export: str
    type: FuncType
    words: list[str]
    program: bool


class Outcome:
    """How a run ended. Times are seconds; None for what was not reached, or cannot be known."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.task: Task | None = None
        self.results: list[WasmVal] | None = None
        self.exit_code: int | None = None  #: the guest's own, whole
        self.error: WasmError | Failure | None = None
        self.stdout: bytes | None = None  #: None: it went where it was to go, as it came
        self.stderr: bytes | None = None
        self.truncated = False
        self.fuel_consumed: int | None = None
        self.wall_s: float | None = None
        self.compile_s: float | None = None
        self.instantiate_s: float | None = None
        self.start_s: float | None = None  #: from this command's first line to the guest's
        self.pid: int | None = None
        self.cpu_s: float | None = None
        self.peak_rss_bytes: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, and well."""
        return self.error is None and not self.exit_code


def run(line: Line, limits: Limits) -> Outcome:
    """Run what `line` names; every failure that is not a bug ends up in the outcome."""
    outcome = Outcome(line.file)
    try:
        source = read_source(line.file, limits.module_bytes)
        # Only said when it differs: whoever puts another host in its place need not know of it.
        options: dict[str, Any] = {"cache": False} if line.given("--no-cache") else {}
        with hosts.open_host(limits, line.values.get("--hardening", "default"), **options) as host:
            begun = time.perf_counter()
            module = host.compile(source.code)
            outcome.compile_s = time.perf_counter() - begun
            outcome.task = task = task_of(module, line)
            values = [] if task.program else _typed(task)
            wasi = _grants(module, line, task)
            begun = time.perf_counter()
            try:
                instance = host.instantiate(module, wasi=wasi)
            except WasmError as exc:
                _keep_output(outcome, getattr(exc, "output", None), line)
                raise
            outcome.instantiate_s = time.perf_counter() - begun
            with instance:
                outcome.pid = instance.pid
                _run(instance, values, line, outcome, clocked=Capability.WALL_CLOCK not in host.missing)
            usage = getattr(instance, "usage", None)  # only a guest that has a process of its own has one
            used = None if usage is None else usage()
            if used is not None:
                outcome.cpu_s, outcome.peak_rss_bytes = used
    except GuestExit as exc:  # in its start function, or its constructor
        outcome.exit_code = exc.exit_code or 0
    except (WasmError, Failure) as exc:
        outcome.error = exc
        outcome.pid = outcome.pid or getattr(exc, "pid", None)
    return outcome


def _run(instance: WasmInstance, values: list[WasmVal], line: Line, outcome: Outcome, *, clocked: bool) -> None:
    task = outcome.task
    assert task is not None
    begun = time.perf_counter()
    outcome.start_s = begun - BEGUN
    try:
        if task.program:
            from ..calls import UNLIMITED

            limits = line.limits
            fuel = None if "fuel" in limits else UNLIMITED
            wall_s = PROGRAM_WALL_S if clocked and "wall_s" not in limits else None
            ended = instance.run(fuel=fuel, wall_s=wall_s)
            outcome.exit_code = ended.exit_code
            _keep_output(outcome, ended, line)
        else:
            outcome.results = instance.call(task.export, values)
    except GuestExit as exc:
        outcome.exit_code = exc.exit_code or 0
    except WasmError as exc:
        outcome.error = exc
        _keep_output(outcome, getattr(exc, "output", None), line)
    outcome.wall_s = time.perf_counter() - begun
    try:
        if outcome.stdout is None:
            _keep_output(outcome, instance.output(), line)
        if instance.alive:  # else the worker took the figure with it
            outcome.fuel_consumed = instance.fuel_consumed()
    except WasmError:  # it has ended, and what it wrote is known
        pass


def _keep_output(outcome: Outcome, output: Any, line: Line) -> None:
    if output is not None and line.given("--json"):
        outcome.stdout, outcome.stderr, outcome.truncated = output.stdout, output.stderr, output.truncated


def _grants(module: WasmModule, line: Line, task: Task) -> Wasi | None:
    """What the command line grants, if the module asks for WASI at all."""
    if not any(hosts.is_preview1(item) for item in module.imports()):
        return None
    from . import granted

    return granted.wasi(line, task.words if task.program else [])


def task_of(module: WasmModule, line: Line) -> Task:
    """What the words after FILE mean. CallError for what is not there to be called.

    With --invoke: that export, and its arguments. Else, of a program (a module with `_start` that imports WASI), its
    arguments. Any other module cannot see arguments, so its words name an export, and then what to call it with;
    without words, that is `_start`, or the only function.
    """
    functions = hosts.function_exports(module)
    named = line.values.get("--invoke")
    program = START in functions and any(hosts.is_preview1(item) for item in module.imports())
    if named is None and program:
        return Task(START, functions[START], line.words, True)
    if named is None and line.words:
        named, *words = line.words
    else:
        words = line.words
    export = _choose(module, functions, named)
    return Task(export, functions[export], words, program and export == START)


def _choose(module: WasmModule, functions: Mapping[str, FuncType], export: str | None) -> str:
    if export is not None:
        if export in functions:
            return export
        if export in module.exports():
            raise CallError(f"export '{printable(export)}' is not a function; {_choice(functions)}")
        raise CallError(f"no export '{printable(export)}'; {_choice(functions)}")
    if START in functions:
        return START
    if len(functions) == 1:
        return next(iter(functions))
    if not functions:
        raise CallError("the module exports no function")
    raise CallError(f"name the export to call; {_choice(functions)}")


def _choice(functions: Mapping[str, FuncType]) -> str:
    if not functions:
        return "the module exports no function"
    shown = [f"{printable(name, 60)} {kind}" for name, kind in list(functions.items())[:_LISTED]]
    more = len(functions) - len(shown)
    return "functions: " + ", ".join(shown) + (f" and {more:,} more" if more else "")


def _typed(task: Task) -> list[WasmVal]:
    """The words by the signature's parameter types. CallError for what does not fit."""
    signature, words = task.type, task.words
    if signature.unsupported:
        raise CallError(f"unsupported type {signature.unsupported} in the signature")
    if len(words) != len(signature.params):
        count = len(signature.params)
        wanted = f"{count} argument{'' if count == 1 else 's'}"
        raise CallError(f"{printable(task.export)} {signature} takes {wanted}, got {len(words)}")
    values: list[WasmVal] = []
    if not words:
        return values
    from . import numbers

    for index, (kind, text) in enumerate(zip(signature.params, words, strict=True)):
        try:
            values.append(numbers.parse(kind, text))
        except ValueError as exc:
            raise CallError(f"argument {index + 1}: {exc}") from None
    return values
