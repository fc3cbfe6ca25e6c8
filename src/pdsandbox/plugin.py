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
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from .errors import CallError, Cause, Quarantined, WasmError
from .imports import WasmImports
from .interfaces import Capability, WasmHost, WasmInstance, WasmModule
from .limits import config_of
from .restarts import Refusal, RestartPolicy, Restarts, Standing, is_its_own, quarantined
from .values import WasmVal

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["Plugin"]

_T = TypeVar("_T")

#: Ends of a call after which it is not made again, though it may be: its time is over, or somebody wanted it to end.
_FINAL: Final = frozenset((Cause.WALL, Cause.CANCELLED, Cause.CLOSED, Cause.USAGE))
# The shortest `wall_s` there is.
_LEAST_S: Final = 0.001


class Plugin:
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
        self._policy = config_of("restart", restart, RestartPolicy)
        self._host = host
        self._module = module
        self._imports = imports
        self._wasi = wasi
        self._prepare = prepare
        self._clock = clock
        self._restarts = Restarts(self._policy, rand)
        self._lock = threading.RLock()  # around `_restarts`, and while an instance is started
        self._owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined] # as Condition does
        self._instance: WasmInstance | None = None
        self._closed = False
        self._starts = 0
        self._told: tuple[Refusal, Quarantined] | None = None
        self._reported: Refusal | None = None

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
        if not idempotent:
            return self._use(lambda instance: instance.call(func, args, fuel=fuel, wall_s=wall_s), None, default)
        began: float | None = None
        allowed = self._host.limits.wall_s if wall_s is None else wall_s
        given = wall_s

        def operation(instance: WasmInstance) -> list[WasmVal]:
            nonlocal began
            began = self._clock()
            return instance.call(func, args, fuel=fuel, wall_s=given)

        def again() -> bool:
            nonlocal given
            if allowed is not None and began is not None and Capability.WALL_CLOCK not in self._host.missing:
                given = allowed - (self._clock() - began)
            return given is None or given >= _LEAST_S

        return self._use(operation, again, default)

    def use(
        self, operation: Callable[[WasmInstance], _T], *, idempotent: bool = False, default: Any = None
    ) -> _T | Any:
        """`operation(instance)`, for several calls, or memory, of the same instance; otherwise as `call`. The instance
        is the plugin's: neither close it nor keep it."""
        return self._use(operation, (lambda: True) if idempotent else None, default)

    def _use(self, operation: Callable[[WasmInstance], _T], again: Callable[[], bool] | None, default: Any) -> _T | Any:
        """`again`: asked before the operation is done a second time; None: it must not be."""
        while True:
            instance: WasmInstance | None = None
            try:
                instance = self._ready()
                result = operation(instance)
            except WasmError as exc:
                lost = instance is not None and not instance.alive
                if lost:
                    assert instance is not None
                    self._lose(instance, exc)
                if lost and again is not None and exc.cause not in _FINAL and self._may_start() and again():
                    again = None
                    continue
                if self._policy.on_failure == "open" and (lost or instance is None) and _is_absence(exc):
                    return default
                raise
            except BaseException:
                # Whoever leaves a call in the middle (KeyboardInterrupt) has ended the instance.
                if instance is not None and not instance.alive:
                    self._lose(instance, None)
                raise
            if self._restarts.trying:
                with self._lock:
                    self._restarts.succeeded(self._clock())
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
                self._lose(instance, _why_gone(instance))
            if self._closed:
                raise _closed()
            now = self._clock()
            refusal = self._restarts.start(now)
            if refusal is not None:
                raise self._quarantined(refusal, now)
            return self._start()

    def _start(self) -> WasmInstance:
        """A start that was booked."""
        try:
            instance = self._host.instantiate(self._module, self._imports, wasi=self._wasi)
            try:
                if self._prepare is not None:
                    self._prepare(instance)
                if self._closed:  # by a host function of the module's start
                    raise _closed()
            except BaseException:
                instance.close()
                raise
        except WasmError as exc:
            self._failed(exc)
            raise
        except BaseException:
            self._restarts.abandoned(self._clock())
            raise
        self._instance = instance
        self._starts += 1
        return instance

    def _lose(self, instance: WasmInstance, error: WasmError | None) -> None:
        """This instance is gone. Each is counted once, by whoever sees it first."""
        with self._lock:
            if self._instance is not instance:
                return
            self._instance = None
            if error is None:
                self._restarts.abandoned(self._clock())
            else:
                self._failed(error)
        instance.close()

    def _failed(self, error: WasmError) -> None:
        now = self._clock()
        refusal = self._restarts.failed(now, error)
        if refusal is not None and refusal.standing is Standing.QUARANTINED and refusal != self._reported:
            self._reported = refusal
            left = None if refusal.until is None else refusal.until - now
            self._host._on_quarantine(self._module, refusal.failures, refusal.error, left)

    def _may_start(self) -> bool:
        with self._lock:
            return not self._closed and self._restarts.refusal(self._clock()) is None

    def _quarantined(self, refusal: Refusal, now: float) -> Quarantined:
        """Told in the same words for as long as it lasts."""
        from datetime import UTC, datetime

        if self._told is None or self._told[0] != refusal:
            self._told = refusal, quarantined(refusal, self._policy, now, datetime.now(UTC))
        first = self._told[1]
        left = None if refusal.until is None else max(0.0, refusal.until - now)
        error = Quarantined(first.message, cause=first.cause, since=first.since, until=first.until, retry_after_s=left)
        error.__cause__ = first.__cause__
        return error

    # --- the rest ---

    @property
    def standing(self) -> Standing:
        """Whether it may be called, or why not now."""
        with self._lock:
            return self._restarts.standing(self._clock())

    @property
    def starts(self) -> int:
        """How many instances there were: whoever keeps state in the plugin's memory sees by it that this is gone."""
        return self._starts

    def current(self) -> WasmInstance | None:
        """The instance that there is now, if any; none is started."""
        instance = self._instance
        return instance if instance is not None and instance.alive else None

    def reset(self) -> None:
        """Forget its failures and end a quarantine."""
        with self._lock:
            self._restarts.reset()

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

    def __repr__(self) -> str:
        return f"<Plugin {self._module.sha256[:12]}, {self.standing.value}, {self._starts} started>"


def _is_absence(error: WasmError) -> bool:
    """Whether the plugin is not to be had, and not because its user ended it, or asked for what cannot be."""
    return isinstance(error, Quarantined) or error.cause is Cause.HOST or is_its_own(error)


def _why_gone(instance: WasmInstance) -> WasmError | None:
    """What ended an instance that nobody was using: every use of it says so."""
    try:
        instance.memory_read(0, 0)
    except WasmError as exc:
        return exc
    return None


def _closed() -> CallError:
    return CallError("the plugin is closed", cause=Cause.CLOSED)
