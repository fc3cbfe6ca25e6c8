"""`AsyncSupervisor` behind the interface of the other hosts, for the conformance tests: a loop in a thread of its own.

Whoever calls waits in its own thread, and host functions run in that thread, as on the other hosts: to the loop they
are coroutine functions that wait for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from pdsandbox import AsyncSupervisor, Caller, HostFunction, WasmHost, WasmImports, WasmInstance

#: What the thread that waits for this operation is to do meanwhile.
_mail: contextvars.ContextVar[Any] = contextvars.ContextVar("mail")


class Sideways(WasmHost):
    """See the module's text."""

    missing = AsyncSupervisor.missing

    def __init__(self, **options: Any) -> None:
        self._host = AsyncSupervisor(**options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._closed = False
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._loop.run_forever()
            except KeyboardInterrupt:
                pass  # out of a task: its waiting thread has it, too

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The outcome of `await make()` on the loop; host functions that it comes to run here."""
        if self._closed or threading.get_ident() == self._thread.ident:
            return _at_once(make())
        mail: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def operation() -> Any:
            _mail.set(mail)
            return await make()

        future = asyncio.run_coroutine_threadsafe(operation(), self._loop)
        future.add_done_callback(lambda _done: mail.put(None))
        try:
            while (work := mail.get()) is not None:
                work()
        except BaseException:  # KeyboardInterrupt of a host function, which cancels the call
            future.cancel()
            while mail.get() is not None:
                pass
            raise
        return future.result()

    def compile(self, wasm: Any) -> Any:
        return self.run(lambda: self._host.compile(wasm))

    def instantiate(self, module: Any, imports: Any = None, **options: Any) -> Any:
        if isinstance(imports, WasmImports):
            imports = _elsewhere(imports)
        return _Instance(self, self.run(lambda: self._host.instantiate(module, imports, **options)))

    def close(self) -> None:
        if not self._closed:
            self.run(self._host.close)
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The outcome of what must not have to wait: the loop is closed, or this is a function that runs on it."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("it waited")


class _Instance(WasmInstance):
    """An `AsyncInstance` for threads."""

    def __init__(self, host: Sideways, instance: Any) -> None:
        self._host = host
        self._inner = instance

    def call(self, *args: Any, **options: Any) -> Any:
        return self._do("call", *args, **options)

    def call_many(self, *args: Any, **options: Any) -> Any:
        return self._do("call_many", *args, **options)

    def func(self, name: str) -> Callable[..., Any]:
        inner = self._inner.func(name)

        @functools.wraps(inner)
        def function(*args: Any) -> Any:
            return self._host.run(lambda: inner(*args))

        return function

    def run(self, **options: Any) -> Any:
        return self._do("run", **options)

    def output(self) -> Any:
        return self._do("output")

    def memory_read(self, offset: Any, length: Any) -> Any:
        return self._do("memory_read", offset, length)

    def memory_read_into(self, offset: Any, buffer: Any) -> Any:
        return self._do("memory_read_into", offset, buffer)

    def memory_write(self, offset: Any, data: Any) -> None:
        self._do("memory_write", offset, data)

    def memory_grow(self, pages: Any) -> Any:
        return self._do("memory_grow", pages)

    def set_fuel(self, fuel: Any) -> None:
        self._do("set_fuel", fuel)

    def fuel_consumed(self) -> Any:
        return self._inner.fuel_consumed()

    def close(self) -> None:
        self._do("close")

    def kill(self) -> None:
        self._do("kill")

    @property
    def alive(self) -> bool:
        return bool(self._inner.alive)

    @property
    def pid(self) -> int:
        return int(self._inner.pid)

    def _do(self, name: str, *args: Any, **options: Any) -> Any:
        return self._host.run(lambda: getattr(self._inner, name)(*args, **options))


class _Caller:
    """A caller for another thread than the loop's."""

    def __init__(self, caller: Caller, loop: asyncio.AbstractEventLoop) -> None:
        self._caller = caller
        self._loop = loop

    def memory_read(self, offset: int, length: int) -> bytes:
        return self._on_loop(self._caller.memory_read, offset, length)

    def memory_write(self, offset: int, data: bytes) -> None:
        self._on_loop(self._caller.memory_write, offset, data)

    def _on_loop(self, action: Callable[..., Any], *args: Any) -> Any:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(_settle, done, action, *args)
        return done.result(60)


def _settle(done: concurrent.futures.Future[Any], action: Callable[..., Any], *args: Any) -> None:
    try:
        done.set_result(action(*args))
    except BaseException as exc:
        done.set_exception(exc)


def _elsewhere(imports: WasmImports) -> WasmImports:
    """The same functions, to run in the thread that waits for the call."""

    def sent(fn: Any, *, has_caller: bool) -> Any:
        if fn is None or type(fn).__name__ == "InWorker":
            return fn

        async def function(*args: Any) -> Any:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Any] = loop.create_future()
            if has_caller:
                args = (_Caller(args[0], loop), *args[1:])
            context = contextvars.copy_context()

            def work() -> None:
                try:
                    value = context.run(fn, *args)
                except KeyboardInterrupt:
                    raise
                except BaseException as exc:
                    loop.call_soon_threadsafe(_give, done, exc, None)
                else:
                    loop.call_soon_threadsafe(_give, done, None, value)

            _mail.get().put(work)
            error, value = await done
            if error is not None:
                raise error
            return value

        return function

    return WasmImports(
        **{name: sent(fn, has_caller=False) for name, fn in imports.pd.items()},
        functions={
            key: HostFunction(sent(function.fn, has_caller=True), function.params, function.results)
            for key, function in imports.functions.items()
        },
    )


def _give(done: asyncio.Future[Any], error: BaseException | None, value: Any) -> None:
    if not done.done():
        done.set_result((error, value))
