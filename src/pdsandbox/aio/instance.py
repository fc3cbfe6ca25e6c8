"""One instance for the tasks of one event loop: whose turn it is, cancellation, and the rest of the contract.

An operation takes its place in the line, then the worker's turn in the loop's thread, which keeps every other thread
away. One that is left half-way (cancelled, or thrown away with its loop) kills the worker, cause CANCELLED; where the
guest can be interrupted it is, and somebody stays to hear the answer before the next one's turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from .. import accounting, generation
from ..again import Attempt
from ..calls import as_buffer, as_data, check_pages, check_range, encode_rows, plain_func
from ..errors import CallError, MemoryAccessError, WasmError
from ..supervisor import monitor
from ..supervisor.calling import LOOK_S, Export
from ..supervisor.instance import Instance
from ..values import WasmVal
from .ending import condemn, let_go, wait_gone
from .hosted import inside
from .interrupted import hear_out
from .port import Operation, Port
from .starters import Starters
from .talk import Talk, rows_at_once

if TYPE_CHECKING:
    from ..wasi import Output, RunResult

__all__ = ["AsyncInstance"]

_T = TypeVar("_T")
# The housekeeper looks at an idle worker for some microseconds.
_GLANCE_S: Final = LOOK_S
# On a busy machine it takes longer than that, and tells nobody when it is done: then who waits looks again so soon.
_AGAIN_S: Final = 5e-3


class AsyncInstance:
    """One instance of a module, for the event loop that it was made on. Calls take turns, first come, first served. An
    asynchronous context manager that closes it. Made by `AsyncSupervisor.instantiate`; see `WasmInstance` for what its
    methods do, and raise.

    Cancelling a task that waits for a call ends the worker (cause CANCELLED) or, with
    `EngineConfig(interruptible=True)`, the call alone.
    """

    def __init__(self, instance: Instance, talk: Talk, starting: Starters) -> None:
        self._instance = instance
        self._talk = talk
        self._port: Port = talk.port
        self._conversation = talk.conversation
        self._handle = instance._handle
        self._starting = starting
        self._generation = generation.now

    # --- calls ---

    async def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[WasmVal]:
        """See `WasmInstance.call`."""
        values: list[WasmVal] = await self._call(func, args, fuel, wall_s, False)
        return values

    def func(self, name: str) -> Callable[..., Awaitable[Any]]:
        """As `WasmInstance.func`; what the callable returns is to be awaited."""
        self._refuse_gone()
        return plain_func(name, self._instance._type_of(name), self._call)

    async def _call(
        self, func: str, args: Any, fuel: int | None, wall_s: float | None, plain: bool, attempt: Attempt | None = None
    ) -> Any:
        """`attempt`: is told when it begins to run."""
        if accounting.wanted and accounting.book() is not None:
            return await self._call_for_receipt(func, args, fuel, wall_s, plain, attempt)
        wall_s = self._instance._turns.wall(wall_s)
        operation = await self._enter(wall_s)
        try:
            started = time.monotonic()
            if attempt is not None:
                attempt.began = started
            export = self._find(func)
            return await self._talk.call(export, args, started, wall_s, fuel, plain=plain)
        finally:
            self._leave(operation)

    async def call_many(
        self,
        func: str,
        rows: Iterable[Sequence[WasmVal | int | float]],
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[list[WasmVal]]:
        """See `WasmInstance.call_many`."""
        wall_s = self._instance._turns.wall(wall_s)
        results: list[list[WasmVal]] = []

        async def operation() -> None:
            started = time.monotonic()
            export = self._find(func)
            self._port.in_callback = True  # rows may have code of their own
            try:
                count, data = encode_rows(export.params, rows, export.stride)
            finally:
                self._port.in_callback = False
            most = rows_at_once(self._instance._limits.message_bytes, export.stride)
            await self._talk.batch(export, count, data, started, wall_s, fuel, most, results)

        try:
            await self._booked("call_many", func, wall_s, operation)
        except WasmError as exc:
            if exc.results is None:
                exc.results = results
            raise
        return results

    async def run(self, *, fuel: int | None = None, wall_s: float | None = None) -> RunResult:
        """See `WasmInstance.run`."""
        wall_s = self._instance._turns.wall(wall_s)

        async def operation() -> RunResult:
            began = time.monotonic()
            start = self._find("_start")
            self._conversation.fuel.begin(fuel)  # refuses what is no budget, before anything has run
            has_run, self._instance._has_run = self._instance._has_run, True
            return await self._talk.run(start, began, has_run=has_run, fuel=fuel, wall_s=wall_s)

        return await self._booked("run", "_start", wall_s, operation)

    async def output(self) -> Output:
        """See `WasmInstance.output`."""
        wall_s = self._instance._limits.wall_s
        return await self._in_turn(wall_s, lambda: self._talk.written(wall_s), usable=False)

    async def _call_for_receipt(
        self, func: str, args: Any, fuel: int | None, wall_s: float | None, plain: bool, attempt: Attempt | None
    ) -> Any:
        """`_call`, for somebody who wants a receipt."""
        most_s, call = self._instance._turns.wall(wall_s), self._talk.call

        async def operation() -> Any:
            started = time.monotonic()
            if attempt is not None:
                attempt.began = started
            return await call(self._find(func), args, started, most_s, fuel, plain=plain)

        return await self._booked("call", func, most_s, operation)

    async def _booked(
        self, kind: str, func: object, wall_s: float | None, operation: Callable[[], Awaitable[_T]]
    ) -> _T:
        """`_in_turn`, with a receipt where somebody wants one."""
        if not accounting.wanted or (book := accounting.book()) is None:
            return await self._in_turn(wall_s, operation)
        from .accounts import keep  # most programs want none

        what = kind, func, self._instance._module.sha256
        return await keep(book, what, self._conversation, self._port, lambda do: self._in_turn(wall_s, do), operation)

    def _find(self, func: object) -> Export:
        instance = self._instance
        return (instance._exports.get(func) if type(func) is str else None) or instance._look_up(func)

    # --- memory ---

    async def memory_read(self, offset: int, length: int) -> bytes:
        """See `WasmInstance.memory_read`."""
        start, size = check_range(offset, length)
        return await self._on_memory(lambda watch: self._talk.memory.read(start, size, watch))

    async def memory_read_into(self, offset: int, buffer: Any) -> int:
        """See `WasmInstance.memory_read_into`."""
        view = as_buffer(buffer)
        start, size = check_range(offset, len(view))
        try:
            await self._on_memory(lambda watch: self._talk.memory.read_into(start, view, watch))
        finally:
            view.release()  # an error's traceback would go on holding the buffer
        return size

    async def memory_write(self, offset: int, data: bytes) -> None:
        """See `WasmInstance.memory_write`."""
        raw = as_data(data)
        start, _ = check_range(offset, len(raw))
        await self._on_memory(lambda watch: self._talk.memory.write(start, raw, watch))

    async def memory_grow(self, pages: int) -> int:
        """See `WasmInstance.memory_grow`."""
        more = check_pages(pages)
        return await self._on_memory(lambda watch: self._talk.memory.grow(more, watch))

    async def _on_memory(self, action: Callable[[monitor.Watch], Awaitable[_T]]) -> _T:
        wall_s = self._instance._limits.wall_s

        async def operation() -> _T:
            talk = self._conversation
            watch = talk.begin(time.monotonic(), wall_s)
            try:
                done = await action(watch)
            except MemoryAccessError:
                talk.busy = False  # nothing was done; from the worker, that was a whole valid reply, too
                raise
            talk.busy = False
            return done

        return await self._in_turn(wall_s, operation)

    # --- turns ---

    async def _in_turn(
        self, wall_s: float | None, operation: Callable[[], Awaitable[_T]], *, usable: bool = True
    ) -> _T:
        token = await self._enter(wall_s, usable=usable)
        try:
            return await operation()
        finally:
            self._leave(token)

    def _check(self) -> None:
        """Refuse another process, loop or thread, and a use from inside its own host function."""
        if self._generation != generation.now:
            raise self._instance._turns.foreign()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._refuse_gone()
            raise CallError("an asynchronous instance can be used only by a task of its event loop") from None
        port = self._port
        if loop is not port.loop:
            self._refuse_gone()
            raise CallError("this instance belongs to another event loop: the one that it was made on")
        for caller in inside.get():
            if caller.running and caller.handle is self._handle:
                raise self._instance._turns.reentered()
        if port.in_callback:
            raise self._instance._turns.reentered()

    def _refuse_gone(self) -> None:
        """Raise what became of an instance that is gone, whoever asks."""
        verdict = self._instance._turns.closed_error() if self._conversation.closed else self._handle.verdict
        if verdict is not None:
            raise verdict

    async def _enter(self, wall_s: float | None, *, usable: bool = True) -> Operation:
        """Wait for our turn; then the pipes are ours until `_leave`."""
        self._check()
        port, handle = self._port, self._handle
        if self._conversation.closed and usable:
            raise self._instance._turns.closed_error()
        deadline = None if wall_s is None else time.monotonic() + wall_s
        if not await port.line.take(wall_s):
            raise self._busy(wall_s)
        operation = Operation(port)
        owned = False
        try:
            while not (owned := handle.turn.acquire(False) or handle.turn.acquire(timeout=_GLANCE_S)):
                # Another instance is being loaded into the same worker, in another thread.
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise self._busy(wall_s)
                await self._starting.one_ends(_AGAIN_S if left is None else min(left, _AGAIN_S))
            port.operation = operation
            if handle.busy or handle.attention:
                await self._look_around(usable=usable)
            if usable and self._conversation.closed:
                raise self._instance._turns.closed_error()
        except BaseException:
            if owned:
                self._leave(operation)
            else:
                port.line.give()
            raise
        return operation

    def _busy(self, wall_s: float | None) -> CallError:
        return CallError(f"the instance is busy: other tasks used it for all of {wall_s:g} s", limit=wall_s)

    async def _look_around(self, *, usable: bool) -> None:
        """Something is not as it should be, or something is to be said first."""
        handle = self._handle
        if handle.busy or handle.alive:
            self._port.worker.leave_operation()
        if usable and not self._conversation.closed and not handle.alive:
            raise handle.verdict or handle.post_mortem(time.monotonic(), 0.0)

    def _leave(self, operation: Operation) -> None:
        """The operation is over, or left half-way."""
        handle, port = self._handle, self._port
        calling, self._talk.calling = self._talk.calling, None
        if not handle.turn_is_ours():
            port.abandon()  # thrown away with its loop, by another thread
            return
        if handle.busy:
            if handle.ended and handle.verdict is None:
                handle.post_mortem(time.monotonic(), 0.0)  # it was not we who ended it
            elif calling is not None and self._may_interrupt(calling[-1]):
                operation.running = False
                hear_out(port, self._conversation, calling, self._give_back)
                return
        self._give_back(operation)

    def _give_back(self, operation: Operation) -> None:
        operation.running = False
        handle, port = self._handle, self._port
        port.operation = None
        try:
            if handle.busy or handle.attention:
                port.worker.leave_operation()
        finally:
            handle.turn.release()
            port.line.give()

    def _may_interrupt(self, watch: monitor.Watch) -> bool:
        """Whether a guest can be asked to stop, for a task that was cancelled; once in a call."""
        port = self._port
        impossible = not self._handle.alive or port.loop.is_closed() or port.sending or port.channel.interrupted
        return watch.interruptible and not impossible

    # --- the rest of the contract ---

    async def set_fuel(self, fuel: int) -> None:
        """See `WasmInstance.set_fuel`."""

        async def operation() -> None:
            self._conversation.fuel.set_fuel(fuel)

        await self._in_turn(self._instance._limits.wall_s, operation)

    def fuel_consumed(self) -> int | None:
        """See `WasmInstance.fuel_consumed`."""
        return self._instance.fuel_consumed()

    async def close(self) -> None:
        """See `WasmInstance.close`. Returns when the worker has ended, if this was the last in it. What it says is said
        at once, whenever this is awaited to its end."""
        if let_go(self):
            await wait_gone(self)

    async def kill(self) -> None:
        """See `WasmInstance.kill`."""
        if self._generation == generation.now and not self._conversation.closed and condemn(self, monitor.killed()):
            await wait_gone(self)

    @property
    def alive(self) -> bool:
        """Whether calls can still succeed."""
        return self._instance.alive

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._instance.pid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncInstance in worker {self.pid}{'' if self.alive else ', gone'}>"
