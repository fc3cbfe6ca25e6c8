"""The thread of a pool: it starts the instances that the books want, ends those that they are done with, and finds out
which have died while they idled. What is to be done is `upkeep`'s to say.

It holds the pool's lock around each look at the books, and never while an instance starts or ends. It does not know
the pool that its callers hold, so that one that is dropped ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .errors import WasmError
from .imports import WasmImports
from .interfaces import WasmHost, WasmInstance, WasmModule
from .restarts import RestartPolicy
from .roster import Lease, Slot
from .sizes import Sizes
from .upkeep import Recipe, Upkeep, again, closed_error, not_started

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["Keeper", "hand_over", "tell"]

log = logging.getLogger("pdsandbox")


class Keeper(Upkeep):
    """See the module's text. `lock` is for what it is as `Upkeep`."""

    def __init__(
        self,
        host: WasmHost,
        module: WasmModule,
        imports: WasmImports | None,
        wasi: Wasi | None,
        sizes: Sizes,
        policy: RestartPolicy,
    ) -> None:
        super().__init__(host, (module, imports), sizes, policy, time.monotonic())
        self.lock = threading.Lock()
        self.drained = threading.Event()  # an instance came back after the pool was closed
        self.outcome = threading.Condition(self.lock)  # a start came to something, or to nothing
        self._host = host
        self._wasi = wasi
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
        self.stopping = True

    def leave(self) -> None:
        """End what may be ended, then the thread, and wait for that."""
        self.stopping = True
        self.wake()
        if not self.here:
            self._thread.join()

    def make(self, recipe: Recipe) -> WasmInstance:
        """An instance, in the caller's thread."""
        return self._host.instantiate(*recipe, wasi=self._wasi)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            self._event.clear()
            stop = self.stopping
            if stop:
                self._refuse_all(closed_error, closing=True)
            while self._safely():
                pass
            if stop:
                break
            with self.lock:
                pause_s = self.pause_s(time.monotonic())
            self._event.wait(pause_s)

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
        self._bury(now)
        with self.lock:
            roster = self.roster
            error = None if not roster.waiting else self.refused(now)
            action = self.next_action(now)
            recipe, version = self.recipe, roster.version
        if error is not None:
            self._refuse_all(lambda: self.refused(now))
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
            error = not_started(exc)
        else:
            with self.lock:
                granted = self.came(instance, version, time.monotonic())
                self.outcome.notify_all()
            hand_over(granted)
            return
        with self.lock:
            told = self.came_to_nothing(error, version, time.monotonic())
            self.outcome.notify_all()
        tell(told, lambda: again(error))

    def _bury(self, now: float) -> None:
        """Take those that died while they idled out of the books."""
        with self.lock:
            dead = self.take_out_dead(now)
        for slot in dead:
            error = slot.instance._why_gone()
            with self.lock:
                self.lost(error, now)

    def _refuse_all(self, why: Callable[[], WasmError | None], *, closing: bool = False) -> None:
        with self.lock:
            error = why()
            told = self.roster.close() if closing else self.roster.refuse() if error is not None else []
            self.outcome.notify_all()
        if error is not None:
            tell(told, lambda: again(error))


def hand_over(granted: Iterable[Lease]) -> None:
    """Wake those who have got an instance."""
    for lease in granted:
        lease.wake.release()


def tell(refused: Iterable[Lease], error: Callable[[], WasmError]) -> None:
    """Wake those who will not get one, each with an error of its own."""
    for lease in refused:
        lease.error = error()
        lease.wake.release()
