"""The user's host functions, so that they always run in the event loop's thread.

During a call they do anyway, and `Serving` awaits those that are coroutine functions. An instance is started in another
thread: from there a function is sent to the loop, and that thread meanwhile does what the function wants with the
guest's memory, which only it may touch.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

from ..callbacks import LiveCaller
from ..errors import CallError
from ..imports import HostFunction, InWorker, WasmImports
from ..supervisor.handle import Handle

__all__ = ["Hosted", "Raised", "Start", "guarded", "inside", "on_loop"]

#: Whose operations the host function that runs here was called from: objects with `running` and `handle`.
inside: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("pdsandbox_inside", default=())

# How often a thread that waits for the loop looks whether there is still one.
_LOOK_S: Final = 0.25


class Raised:
    """What a coroutine raised, as a result: a SystemExit in a task would end the user's event loop."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def again(self) -> NoReturn:
        """Raise it, once, and let go of it: it has the frames that it is raised in, and those have this."""
        error, self.error = self.error, None
        assert error is not None
        try:
            raise error
        finally:
            del error


async def guarded(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What the coroutine function returns, or `Raised`."""
    try:
        return await function(*args)
    except KeyboardInterrupt:
        raise
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Raised(exc)  # its own
    except RuntimeError as exc:
        stopped = isinstance(exc.__cause__, StopIteration) and exc.args == ("coroutine raised StopIteration",)
        return Raised(exc.__cause__ if stopped and exc.__cause__ is not None else exc)  # what it raised itself
    except BaseException as exc:
        return Raised(exc)


class Start:
    """One instantiation: the loop and the context that want it, and the worker that it got."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.context = contextvars.copy_context()
        self.running = True
        self.handle: Handle | None = None
        self._verdict: Any = None

    def begun(self, handle: Handle) -> None:
        """It has a worker; in the starting thread."""
        self.handle = handle
        if self._verdict is not None:
            handle.condemn(self._verdict)

    def stop(self, verdict: Any) -> None:
        """Nobody wants it any more; in the loop's thread."""
        self._verdict = verdict
        if self.handle is not None:
            self.handle.condemn(verdict)

    def over(self) -> None:
        """It stands, or failed."""
        self.running = False


class Hosted:
    """One function. Called in the loop's thread, it is the user's own; elsewhere it runs there and is waited for."""

    __slots__ = ("coroutine", "fn", "start")

    def __init__(self, fn: Callable[..., Any], start: Start) -> None:
        self.fn = fn
        self.coroutine = _is_coroutine_function(fn)
        self.start = start

    def __call__(self, *args: Any) -> Any:
        start = self.start
        if threading.get_ident() == start.thread:
            return self.fn(*args)
        mail: queue.SimpleQueue[Any] = queue.SimpleQueue()
        caller = args[0] if args and isinstance(args[0], LiveCaller) else None
        far = _FarCaller(mail)
        try:
            start.loop.call_soon_threadsafe(self._run, args if caller is None else (far, *args[1:]), far, mail)
        except RuntimeError:
            raise CallError("the event loop is closed") from None
        handle = start.handle
        assert handle is not None
        over = functools.partial(mail.put, None)
        handle.when_ended(over)
        try:
            return self._wait(far, caller, mail)
        finally:
            handle.forget(over)

    def _wait(self, far: _FarCaller, caller: LiveCaller | None, mail: queue.SimpleQueue[Any]) -> Any:
        """Until the function has come to its end in the loop's thread, doing for it what is to be done here."""
        while True:
            try:
                message = mail.get(timeout=_LOOK_S)
            except queue.Empty:
                if self.start.loop.is_closed():
                    raise CallError("the event loop was closed while a host function ran in it") from None
                continue
            if message is None:  # the worker is gone: an answer is of no use any more
                try:
                    self.start.loop.call_soon_threadsafe(far.cancel)
                except RuntimeError:
                    pass
            elif isinstance(message, _Ask):
                assert caller is not None
                message.answer(caller)
            elif isinstance(message, Raised):
                message.again()
            else:
                (value,) = message
                return value

    def _run(self, args: tuple[Any, ...], far: _FarCaller, mail: queue.SimpleQueue[Any]) -> None:
        """In the loop's thread."""
        context = self.start.context.copy()
        context.run(inside.set, (*context.get(inside, ()), self.start))
        if self.coroutine:
            far.task = task = self.start.loop.create_task(guarded(self.fn, args), context=context)
            task.add_done_callback(functools.partial(_came, far, mail))
            return
        try:
            value = context.run(self.fn, *args)
        except KeyboardInterrupt as exc:
            mail.put(Raised(exc))
            raise
        except BaseException as exc:
            mail.put(Raised(exc))
        else:
            mail.put((value,))
        finally:
            far.ended = True


def _came(far: _FarCaller, mail: queue.SimpleQueue[Any], task: asyncio.Task[Any]) -> None:
    far.ended = True
    if task.cancelled():
        mail.put(Raised(asyncio.CancelledError()))
        return
    error = task.exception()
    value = task.result() if error is None else Raised(error)
    mail.put(value if isinstance(value, Raised) else (value,))


class _FarCaller:
    """The caller that a function gets in the loop's thread while its instance is being started in another one."""

    def __init__(self, mail: queue.SimpleQueue[Any]) -> None:
        self._mail = mail
        self.ended = False
        self.task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Nobody waits for the function's answer any more."""
        if self.task is not None:
            self.task.cancel()

    def memory_read(self, offset: int, length: int) -> bytes:
        data: bytes = self._ask("memory_read", offset, length)
        return data

    def memory_write(self, offset: int, data: bytes) -> None:
        self._ask("memory_write", offset, data)

    def _ask(self, name: str, *args: Any) -> Any:
        if self.ended:
            raise CallError("a caller is valid only until its host function returns")
        ask = _Ask(name, args)
        self._mail.put(ask)
        answer = ask.reply.get()
        if isinstance(answer, Raised):
            answer.again()
        return answer[0]


class _Ask:
    """One memory operation, for the thread that may do it."""

    __slots__ = ("_args", "_name", "reply")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self._name = name
        self._args = args
        self.reply: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer(self, caller: LiveCaller) -> None:
        try:
            self.reply.put((getattr(caller, self._name)(*self._args),))
        except BaseException as exc:
            self.reply.put(Raised(exc))


def on_loop(imports: WasmImports, start: Start) -> WasmImports:
    """The same offers, to be run in the loop's thread; what is shipped to the worker stays as it is."""

    def hosted(fn: Callable[..., Any]) -> Callable[..., Any]:
        return fn if isinstance(fn, InWorker) else Hosted(fn, start)

    return WasmImports(
        **{name: None if fn is None else hosted(fn) for name, fn in imports.pd.items()},
        functions={
            key: HostFunction(hosted(function.fn), function.params, function.results)
            for key, function in imports.functions.items()
        },
    )


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
