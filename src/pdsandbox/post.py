"""The one place that a plugin's instance fills: which is in it, how often it was filled, and whether it may be now.

Decisions only: `plugin` starts and ends instances, for threads, and another one does for the tasks of an event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from .again import is_absence
from .errors import CallError, Cause, WasmError
from .history import History
from .interfaces import WasmModule
from .limits import config_of
from .restarts import RestartPolicy, Standing

__all__ = ["Post", "closed_error"]


class _Host(Protocol):
    def _on_quarantine(self, module: WasmModule, failures: int, error: WasmError, left_s: float | None) -> None: ...


class _Alive(Protocol):
    @property
    def alive(self) -> bool: ...


_I = TypeVar("_I", bound=_Alive)


class Post(Generic[_I]):
    """See the module's text. `lock` is held around what is not done at once."""

    def __init__(
        self,
        host: _Host,
        module: WasmModule,
        restart: RestartPolicy | None,
        clock: Callable[[], float],
        rand: Callable[[], float],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._policy = config_of("restart", restart, RestartPolicy)
        self._module = module
        self._clock = clock
        self._restarts = History(self._policy, rand, lambda *what: host._on_quarantine(module, *what))
        self._lock = lock
        self._instance: _I | None = None
        self._closed = False
        self._starts = 0

    def _book(self) -> None:
        """Holding the lock: a start is about to be made. Raises why it is not to be."""
        if self._closed:
            raise closed_error()
        now = self._clock()
        refusal = self._restarts.start(now)
        if refusal is not None:
            raise self._restarts.quarantined(refusal, now)

    def _fill(self, instance: _I) -> None:
        self._instance = instance
        self._starts += 1

    def _failed(self, error: BaseException | None) -> None:
        """Holding the lock: what was started, or had been, is gone, by this. What is no WasmError says nothing of the
        plugin."""
        if isinstance(error, WasmError):
            self._restarts.failed(self._clock(), error)
        else:
            self._restarts.abandoned(self._clock())

    def _vacate(self, instance: _I, error: WasmError | None) -> bool:
        """This instance is gone. Each is counted once, by whoever sees it first: whether that is us."""
        with self._lock:
            if self._instance is not instance:
                return False
            self._instance = None
            self._failed(error)
        return True

    def _may_start(self) -> bool:
        with self._lock:
            return not self._closed and self._restarts.refusal(self._clock()) is None

    def _served(self) -> None:
        """A call has come to its end."""
        if self._restarts.trying:
            with self._lock:
                self._restarts.succeeded(self._clock())

    def _does_without(self, error: WasmError) -> bool:
        """Whether callers get their default instead of this."""
        return self._policy.on_failure == "open" and is_absence(error)

    @property
    def standing(self) -> Standing:
        """Whether it may be called, or why not now."""
        with self._lock:
            return self._restarts.standing(self._clock())

    @property
    def starts(self) -> int:
        """How many instances there were: whoever keeps state in the plugin's memory sees by it that this is gone."""
        return self._starts

    def current(self) -> _I | None:
        """The instance that there is now, if any; none is started."""
        instance = self._instance
        return instance if instance is not None and instance.alive else None

    def reset(self) -> None:
        """Forget its failures and end a quarantine."""
        with self._lock:
            self._restarts.reset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._module.sha256[:12]}, {self.standing.value}, {self._starts} started>"


def closed_error() -> CallError:
    """What a call gets from a plugin that is closed."""
    return CallError("the plugin is closed", cause=Cause.CLOSED)
