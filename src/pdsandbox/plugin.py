"""`Plugin`: one module whose instance is replaced when it is gone, as a `RestartPolicy` says.

Over the interface only, so it works with every host. It starts an instance when one is needed, counts its failures, and
answers for the one thing that matters most: a call whose fate is not known is not made again, unless its caller said
that it may be. What decides about starts is `restarts`; a pool has instances of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .again import Attempt
from .errors import CallError, WasmError
from .imports import WasmImports
from .interfaces import WasmHost, WasmInstance, WasmModule
from .post import Post, closed_error
from .restarts import RestartPolicy
from .values import WasmVal

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["Plugin"]

_T = TypeVar("_T")


class Plugin(Post[WasmInstance]):
    """A module that is served by one instance at a time; made by `WasmHost.plugin`. A context manager that closes it.

    The instance is started by the first call, and a new one, with fresh memory, by the first call after it was lost.
    Any thread may use it, as an instance; while one starts an instance, the others wait for that.
    """

    def __init__(
        self,
        host: WasmHost,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
        prepare: Callable[[WasmInstance], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        """`prepare` is part of starting an instance: what it raises is a start that failed."""
        # Around what the policy decides, and while an instance is started.
        turn = threading.RLock()
        self._owned: Callable[[], bool] = turn._is_owned  # type: ignore[attr-defined] # as Condition does
        super().__init__(host, module, restart, clock, rand, turn)
        self._host = host
        self._imports = imports
        self._wasi = wasi
        self._prepare = prepare

    # --- calls ---

    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
        idempotent: bool = False,
        default: Any = None,
    ) -> list[WasmVal] | Any:
        """As `WasmInstance.call`, and `Quarantined` while the plugin is not to be started.

        idempotent  the call may be made twice: if the instance is lost in it, it is made once more in a new one, where
                    the policy allows that at once, and within what is left of its `wall_s`
        default     what it returns with `on_failure="open"`, instead of raising Quarantined or a failure
        """
        attempt = Attempt(self._host, wall_s, idempotent=idempotent)
        return self._use(lambda instance: instance.call(func, args, fuel=fuel, wall_s=attempt.wall_s), attempt, default)

    def use(
        self, operation: Callable[[WasmInstance], _T], *, idempotent: bool = False, default: Any = None
    ) -> _T | Any:
        """`operation(instance)`, for several calls, or memory, of the same instance; otherwise as `call`. The instance
        is the plugin's: neither close it nor keep it."""
        return self._use(operation, Attempt(None, None, idempotent=idempotent), default)

    def _use(self, operation: Callable[[WasmInstance], _T], attempt: Attempt, default: Any) -> _T | Any:
        while True:
            instance: WasmInstance | None = None
            try:
                instance = self._ready()
                attempt.began = self._clock()
                result = operation(instance)
            except WasmError as exc:
                lost = instance is not None and not instance.alive
                if lost:
                    assert instance is not None
                    self._lose(instance, exc)
                    if self._may_start() and attempt.again(exc, self._clock()):
                        continue
                if (lost or instance is None) and self._does_without(exc):
                    return default
                raise
            except BaseException:
                # Whoever leaves a call in the middle (KeyboardInterrupt) has ended the instance.
                if instance is not None and not instance.alive:
                    self._lose(instance, None)
                raise
            self._served()
            return result

    # --- instances ---

    def _ready(self) -> WasmInstance:
        """The instance; a new one if need be, and if that is allowed."""
        instance = self._instance
        if instance is not None and instance.alive:
            return instance
        if self._owned():
            raise CallError("a plugin cannot be used from inside a host function while it is being started")
        with self._lock:
            instance = self._instance
            if instance is not None:
                if instance.alive:
                    return instance
                self._lose(instance, instance._why_gone())
            self._book()
            return self._start()

    def _start(self) -> WasmInstance:
        """A start that was booked."""
        try:
            instance = self._host.instantiate(self._module, self._imports, wasi=self._wasi)
            try:
                if self._prepare is not None:
                    self._prepare(instance)
                if self._closed:  # by a host function of the module's start
                    raise closed_error()
            except BaseException:
                instance.close()
                raise
        except BaseException as exc:
            self._failed(exc)
            raise
        self._fill(instance)
        return instance

    def _lose(self, instance: WasmInstance, error: WasmError | None) -> None:
        if self._vacate(instance, error):
            instance.close()

    # --- the rest ---

    def close(self) -> None:
        """End its instance; later calls raise CallError, cause CLOSED. Twice is allowed."""
        self._closed = True
        with self._lock:
            instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
