"""The thread of a pool: it starts the instances that the books want, ends those that they are done with, and finds out
which have died while they idled. What is to be done is `roster`'s to say, and when a start may be tried `restarts`'.

It holds the pool's lock around each look at the books, and never while an instance starts or ends. It does not know
the pool that its callers hold, so that one that is dropped ends.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import CallError, Cause, InstantiationError, WasmError
from .imports import WasmImports
from .interfaces import WasmHost, WasmInstance, WasmModule
from .restarts import Refusal, RestartPolicy, Restarts, Standing, is_its_own, quarantined
from .roster import Lease, Roster, Slot
from .sizes import Sizes

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["Keeper", "closed_error", "why_gone"]

# How long an instance that died while it idled stands in the books at most, and how long after a start that this
# machine refused the next one is tried, unless a call waits for it.
_TICK_S: Final = 1.0

Recipe: TypeAlias = tuple[WasmModule, WasmImports | None]
log = logging.getLogger("pdsandbox")


class Keeper:
    """See the module's text. `lock` is for `roster` and `restarts`."""

    def __init__(
        self,
        host: WasmHost,
        module: WasmModule,
        imports: WasmImports | None,
        wasi: Wasi | None,
        sizes: Sizes,
        policy: RestartPolicy,
    ) -> None:
        self.lock = threading.Lock()
        self.roster = Roster(sizes)
        self.restarts = Restarts(policy, random.random)
        self.drained = threading.Event()  # an instance came back after the pool was closed
        self.ready = threading.Condition(self.lock)  # a start came to something, or to nothing
        self.last_error: WasmError | None = None  # of the last start
        #: What the next instance is made of: replaced under the lock, with the roster's version.
        self.recipe: Recipe = module, imports
        self.starts = 0
        self._host = host
        self._wasi = wasi
        self._paused_until = 0.0
        self._looked_at = time.monotonic()
        self._stop = False
        self._event = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pdsandbox pool", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether this is its thread: then a host function runs that an instance calls while it starts."""
        return threading.current_thread() is self._thread

    def wake(self) -> None:
        """There is work."""
        self._event.set()

    def abandon(self) -> None:
        """For finalisers: end everything, at the next tick."""
        self._stop = True

    def leave(self) -> None:
        """End what may be ended, then the thread, and wait for that."""
        self._stop = True
        self.wake()
        if not self.here:
            self._thread.join()

    def lost(self, error: WasmError | None) -> None:
        """Holding the lock: an instance is gone, by this. None: somebody left it half-way."""
        now = time.monotonic()
        if error is None:
            self.restarts.abandoned(now)
        else:
            self.restarts.failed(now, error)
        self.roster.work = True

    def refused(self) -> WasmError | None:
        """Holding the lock: why no instance will come, if none is there either."""
        now = time.monotonic()
        refusal = self.restarts.refusal(now)
        if refusal is None or refusal.standing is not Standing.QUARANTINED or self.roster.alive:
            return None
        return quarantined(refusal, self.restarts.policy, now, datetime.now(UTC))

    def make(self, recipe: Recipe) -> WasmInstance:
        """An instance, in the caller's thread."""
        return self._host.instantiate(*recipe, wasi=self._wasi)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            self._event.clear()
            stop = self._stop
            if stop:
                self._refuse_all(closed_error, closing=True)
            while self._safely():
                pass
            if stop:
                break
            self._event.wait(self._pause_s())

    def _safely(self) -> bool:
        """One failing duty must not end the others."""
        try:
            return self._step()
        except Exception:
            log.exception("pdsandbox: a pool failed at one of its duties")
            return True  # that duty is done with: it is not in the books any more

    def _step(self) -> bool:
        """Do one thing; whether there was one."""
        now = time.monotonic()
        if now >= self._looked_at + _TICK_S:
            self._looked_at = now
            self._bury()
        with self.lock:
            roster = self.roster
            refusal = self.restarts.refusal(now)
            # What this machine refuses is tried again at once for a call that has nothing else to wait for.
            paused = now < self._paused_until and (roster.alive > 0 or not roster.waiting)
            roster.startable = refusal is None and not paused
            error = None if not roster.waiting else self.refused()
            action = roster.next_action(now)
            if action is True:
                self.restarts.start(now)
            recipe, version = self.recipe, roster.version
        if error is not None:
            self._refuse_all(self.refused)
        if action is True:
            self._start(recipe, version)
        elif isinstance(action, Slot):
            try:
                action.instance.close()
            finally:
                with self.lock:
                    roster.ended()
        return action is not False

    def _start(self, recipe: Recipe, version: int) -> None:
        error: WasmError
        try:
            instance = self.make(recipe)
        except WasmError as exc:
            error = exc
        except Exception as exc:
            error = InstantiationError(f"an instance could not be started: {type(exc).__name__}", cause=Cause.HOST)
            error.__cause__ = exc
        else:
            with self.lock:
                self.starts += 1
                self.last_error = None
                granted = self.roster.started(Slot(instance, version), time.monotonic())
                self.ready.notify_all()
            hand_over(granted)
            return
        self._start_failed(error, version)

    def _start_failed(self, error: WasmError, version: int) -> None:
        now = time.monotonic()
        told: list[Lease] = []
        with self.lock:
            roster = self.roster
            if version == roster.version:
                self.last_error = error
                self.restarts.failed(now, error)
            else:
                self.restarts.abandoned(now)
            first = roster.start_failed()
            if first is not None:
                told.append(first)
            if not is_its_own(error):
                self._paused_until = now + _TICK_S
                if not roster.alive:
                    told += roster.refuse()
            self._stop = self._stop or error.cause is Cause.CLOSED  # the host is
            self.ready.notify_all()
        tell(told, lambda: _again(error))

    def _bury(self) -> None:
        """Take those that died while they idled out of the books."""
        with self.lock:
            dead = [slot for slot in self.roster.idle if not slot.instance.alive]
            for slot in dead:
                self.roster.remove(slot)
        for slot in dead:
            error = why_gone(slot.instance)
            with self.lock:
                self.lost(error)

    def _refuse_all(self, why: Callable[[], WasmError | None], *, closing: bool = False) -> None:
        with self.lock:
            error = why()
            told = self.roster.close() if closing else self.roster.refuse() if error is not None else []
            self.ready.notify_all()
        if error is not None:
            tell(told, lambda: _again(error))

    def _pause_s(self) -> float:
        """Until something is to be done, as far as that is known."""
        now = time.monotonic()
        with self.lock:
            refusal: Refusal | None = self.restarts.refusal(now)
            due = min(now + _TICK_S, self.roster.next_look())
        if refusal is not None and refusal.until is not None:
            due = min(due, refusal.until)
        return max(0.0, due - now)


def hand_over(granted: Iterable[Lease]) -> None:
    """Wake those who have got an instance."""
    for lease in granted:
        lease.wake.release()


def tell(refused: Iterable[Lease], error: Callable[[], WasmError]) -> None:
    """Wake those who will not get one, each with an error of its own."""
    for lease in refused:
        lease.error = error()
        lease.wake.release()


def _again(error: WasmError) -> WasmError:
    """The same for one more caller: an exception object belongs to one raise."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


def closed_error() -> CallError:
    """What a call gets from a pool that is closed."""
    return CallError("the pool is closed", cause=Cause.CLOSED)


def why_gone(instance: WasmInstance) -> WasmError | None:
    """What ended an instance that nobody was using: every use of it says so."""
    try:
        instance.memory_read(0, 0)
    except WasmError as exc:
        return exc
    return None
