"""One instance in its worker, as the user holds it: the contract, over the ways to say it to the worker.

Whose turn it is, and how an operation is left, is `turns`'; a call that comes again is `warm`'s. `close` and `kill`
condemn from any thread and never wait for the turn.
"""

from __future__ import annotations

import ctypes
import functools
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import accounting, generation
from ..calls import as_buffer, as_data, check_name, check_pages, check_range, encode_rows, named, unsupported
from ..errors import CallError, MemoryAccessError, WasmError
from ..externs import FuncType
from ..interfaces import WasmInstance
from ..limits import Limits
from ..slots import SLOT_BYTES
from ..values import WasmVal
from . import monitor
from .calling import Export
from .conversation import Conversation
from .housekeeper import Housekeeper
from .memory import PIECE_BYTES
from .module import Module
from .turns import END_WAIT_S, Turns
from .warm import REQUEST_BYTES, WarmCall, warm_call

if TYPE_CHECKING:
    from ..wasi import Output, RunResult

_T = TypeVar("_T")


class Instance(WasmInstance):
    """See `WasmInstance`. Made by `Supervisor.instantiate`."""

    def __init__(self, conversation: Conversation, module: Module, limits: Limits, housekeeper: Housekeeper) -> None:
        self._talk = conversation
        self._worker = conversation.place.worker
        self._handle = conversation.handle
        self._turns = Turns(conversation, limits)
        self._in_turn = self._turns.run
        self._module = module
        self._limits = limits
        self._housekeeper = housekeeper
        self._generation = generation.now
        self._exports = conversation.exports
        self._warm: dict[str, WarmCall] = {}  # of exports that were called
        self._has_run = False
        # Must not hold the instance; what is left to do for one that was dropped is to give up its place.
        vacate = functools.partial(self._worker.vacate, conversation.place)
        weakref.finalize(self, housekeeper.later, vacate).atexit = False

    # --- calls ---

    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[WasmVal]:
        """See `WasmInstance.call`."""
        warm = self._warm.get(func) if type(func) is str else None
        if warm is None or (accounting.wanted and accounting.book() is not None):
            values: list[WasmVal] = self._call(func, args, fuel, wall_s, False)
            return values
        return warm(args, fuel, wall_s, False)  # type: ignore[no-any-return]

    def func(self, name: str) -> Callable[..., Any]:
        """See `WasmInstance.func`."""
        verdict = self._turns.closed_error() if self._talk.closed else self._handle.verdict
        if verdict is not None:
            raise verdict
        type_ = self._type_of(name)

        def function(*args: Any) -> Any:
            warm = self._warm.get(name)
            if warm is None or (accounting.wanted and accounting.book() is not None):
                return self._call(name, args, None, None, True)
            return warm(args, None, None, True)

        return named(function, name, type_)

    def _call(self, func: str, args: Any, fuel: int | None, wall_s: float | None, plain: bool) -> Any:
        """A call that may be the first of its export, or one that somebody wants a receipt of."""
        booked = accounting.wanted and accounting.book() is not None
        name = str.__str__(func) if issubclass(type(func), str) else None  # of a member of a StrEnum: its value
        export = None if name is None or booked else self._exports.get(name)
        if name is not None and export is not None and export.request_bytes <= REQUEST_BYTES:
            warm = self._warm.get(name)
            if warm is None:
                warm = self._warm[name] = warm_call(self._turns, export)
            return warm(args, fuel, wall_s, plain)
        most_s = self._turns.wall(wall_s)

        def operation() -> Any:
            started = time.monotonic()
            found, budget = self._look_up(func), self._talk.fuel.begin(fuel)
            return self._talk.call(found, args, started, most_s, budget, plain)

        return self._booked("call", func, most_s, operation)

    def call_many(
        self,
        func: str,
        rows: Iterable[Sequence[WasmVal | int | float]],
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[list[WasmVal]]:
        """See `WasmInstance.call_many`. One message carries at most `message_bytes`; a longer batch takes several."""
        wall_s = self._turns.wall(wall_s)
        results: list[list[WasmVal]] = []

        def operation() -> None:
            started = time.monotonic()
            export = self._look_up(func)
            stride = export.stride
            count, data = encode_rows(export.params, rows, stride)
            budget, watch = self._talk.fuel.begin(fuel), self._talk.begin(started, wall_s, call=True)
            most = max(1, self._limits.message_bytes // max(SLOT_BYTES, stride))
            for at in range(0, count, most):
                few = min(most, count - at)
                piece = data if few == count else data[at * stride : (at + few) * stride]
                budget -= self._talk.batch(export, piece, few, results, budget, started, watch)
                self._talk.look(time.monotonic(), watch)
            self._talk.busy = False

        try:
            self._booked("call_many", func, wall_s, operation)
        except WasmError as exc:
            if exc.results is None:
                exc.results = results
            raise
        return results

    def run(self, *, fuel: int | None = None, wall_s: float | None = None) -> RunResult:
        """See `WasmInstance.run`."""
        from . import program  # most guests are none

        wall_s = self._turns.wall(wall_s)

        def operation() -> RunResult:
            began = time.monotonic()
            start = self._exports.get("_start") or self._look_up("_start")
            self._talk.fuel.begin(fuel)  # refuses what is no budget, before anything has run
            has_run, self._has_run = self._has_run, True
            return program.run(self._talk, start, began, has_run=has_run, fuel=fuel, wall_s=wall_s)

        return self._booked("run", "_start", wall_s, operation)

    def output(self) -> Output:
        """See `WasmInstance.output`. There is one also of an instance that has gone."""
        from . import program

        most_s = self._limits.wall_s
        return self._in_turn(most_s, lambda: program.written(self._talk, most_s), usable=False)

    def _booked(self, kind: str, func: object, wall_s: float | None, operation: Callable[[], _T]) -> _T:
        """`_in_turn`, with a receipt where somebody wants one."""
        if not accounting.wanted or (book := accounting.book()) is None:
            return self._in_turn(wall_s, operation)
        from .accounts import keep  # most programs want none

        sha256 = self._module.sha256
        return keep(book, (kind, func, sha256), self._talk, lambda do: self._in_turn(wall_s, do), operation)

    def _look_up(self, func: object) -> Export:
        """An export that has not been called yet."""
        name = check_name(func)
        if self._talk.closed:
            raise self._turns.closed_error()
        export = self._exports.get(name) or self._talk.export(name, self._type_of(name))
        self._check_message(export.params.nbytes)
        return export

    def _type_of(self, func: object) -> FuncType:
        """The signature of a function that can be called."""
        name = check_name(func)
        type_ = self._module.signature(name)
        if type_.unsupported is not None:
            raise unsupported(name, type_)
        return type_

    def _check_message(self, nbytes: int) -> None:
        limit = self._limits.message_bytes
        if nbytes > limit:
            text = f"the arguments take {nbytes:,} bytes; message_bytes allows {limit:,}"
            raise CallError(text, limit=limit, observed=nbytes)

    # --- memory ---

    def memory_read(self, offset: int, length: int) -> bytes:
        """See `WasmInstance.memory_read`."""
        start, size = check_range(offset, length)
        memory = self._talk.memory
        return self._on_memory(
            lambda watch: memory.read_direct(start, size, watch),
            lambda watch: memory.read(start, size, watch),
        )

    def memory_read_into(self, offset: int, buffer: Any) -> int:
        """See `WasmInstance.memory_read_into`."""
        view = as_buffer(buffer)
        start, size = check_range(offset, len(view))
        memory = self._talk.memory

        def direct(watch: monitor.Watch) -> int | None:
            with_address = (ctypes.c_char * size).from_buffer(view)
            return size if memory.read_into_direct(start, ctypes.addressof(with_address), size, watch) else None

        def piped(watch: monitor.Watch) -> int:
            view[:] = memory.read(start, size, watch)
            return size

        return self._on_memory(direct, piped)

    def memory_write(self, offset: int, data: bytes) -> None:
        """See `WasmInstance.memory_write`."""
        raw = as_data(data)
        start, _ = check_range(offset, len(raw))
        memory = self._talk.memory
        self._on_memory(
            lambda watch: memory.write_direct(start, raw, watch) or None,
            lambda watch: memory.write(start, raw, watch),
            torn=len(raw) > PIECE_BYTES,
        )

    def memory_grow(self, pages: int) -> int:
        """See `WasmInstance.memory_grow`."""
        more = check_pages(pages)
        return self._on_memory(lambda _watch: None, lambda watch: self._talk.memory.grow(more, watch))

    def _on_memory(
        self,
        direct: Callable[[monitor.Watch], _T | None],
        piped: Callable[[monitor.Watch], _T],
        *,
        torn: bool = False,
    ) -> _T:
        """A memory operation, in a turn of its own: without the worker, or if that cannot be (None), with it.

        `torn`: whoever leaves it in the middle, leaves half of it in the guest's memory.
        """
        wall_s = self._limits.wall_s

        def operation() -> _T:
            talk = self._talk
            started = time.monotonic()
            talk.prepare(started, wall_s)
            talk.busy = torn
            try:
                done = direct(talk.watch(started, wall_s))
                if done is None:
                    done = piped(talk.begin(started, wall_s))
            except MemoryAccessError:
                talk.busy = False  # nothing was done; from the worker, that was a whole valid reply, too
                raise
            talk.busy = False
            return done

        return self._in_turn(wall_s, operation)

    # --- the rest of the contract ---

    def set_fuel(self, fuel: int) -> None:
        """See `WasmInstance.set_fuel`."""
        self._in_turn(self._limits.wall_s, lambda: self._talk.fuel.set_fuel(fuel))

    def fuel_consumed(self) -> int | None:
        """See `WasmInstance.fuel_consumed`."""
        return self._talk.fuel.consumed

    def close(self) -> None:
        """See `WasmInstance.close`. Returns when the worker has ended, if this was the last in it. Otherwise the guest
        of a call that another thread makes goes on to its end first."""
        if self._generation != generation.now:
            return  # the parent's worker is the parent's to end
        if self._handle.verdict is None:
            self._talk.closed = True
            self._exports, self._warm = {}, {}  # where no call finds anything
        if self._talk.place.leave():
            self._end(monitor.closed())
        else:
            self._handle.speak_when_idle()

    def kill(self) -> None:
        """See `WasmInstance.kill`. Returns when the worker has ended, and with it all instances that share it."""
        if self._generation == generation.now and not self._talk.closed:
            self._end(monitor.killed())

    def _end(self, verdict: WasmError) -> None:
        self._handle.condemn(verdict)
        self._handle.release_when_idle()  # else who is in an operation does it on the way out
        self._handle.wait_ended(END_WAIT_S)

    @property
    def alive(self) -> bool:
        """Whether calls can still succeed."""
        return self._generation == generation.now and self._handle.alive and not self._talk.closed

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._handle.pid or 0

    def usage(self) -> tuple[float, int] | None:
        """(seconds of CPU time, bytes resident at most) of the worker over its life, the time before it had the guest
        included; None until it has ended, and where that cannot be known."""
        cpu_us, peak = self._handle.used
        return None if cpu_us is None or peak is None else (cpu_us / 1e6, peak)

    def __repr__(self) -> str:
        return f"<Instance in worker {self.pid}{'' if self.alive else ', gone'}>"
