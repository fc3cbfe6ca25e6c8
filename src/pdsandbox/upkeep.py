"""What is to be done for a pool next, and what follows from what was done: its books and its restart policy together.

Decisions only: it starts and ends nothing, waits for nothing and knows no clock. `keeper` acts on them in a thread, and
holds a lock around each; a pool of an event loop does in the loop.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Any, Final, Protocol, TypeAlias

from . import refusals
from .errors import CallError, Cause, InstantiationError, WasmError
from .history import History
from .imports import WasmImports
from .interfaces import WasmModule
from .restarts import RestartPolicy, Standing, is_its_own
from .roster import Lease, Roster, Slot
from .sizes import Sizes

__all__ = [
    "Recipe",
    "Upkeep",
    "again",
    "closed_error",
    "foreign_error",
    "not_started",
    "recipe_of",
    "swap_in_swap",
    "waits_for_itself",
]

# How long an instance that died while it idled stands in the books at most, and how long after a start that this
# machine refused the next one is tried, unless a call waits for it.
_TICK_S: Final = 1.0

#: What an instance is made of.
Recipe: TypeAlias = tuple[WasmModule, WasmImports | None]


class _Host(Protocol):
    def _on_quarantine(self, module: WasmModule, failures: int, error: WasmError, left_s: float | None) -> None: ...


class Upkeep:
    """See the module's text.

    last_error  of the last start, if that failed
    recipe      of the next instance
    starts      that came to something
    stopping    all is to end
    """

    def __init__(self, host: _Host, recipe: Recipe, sizes: Sizes, policy: RestartPolicy, now: float) -> None:
        self.roster = Roster(sizes)
        self.recipe = recipe
        self.last_error: WasmError | None = None
        self.starts = 0
        self.stopping = False
        self.restarts = History(policy, random.random, lambda *what: host._on_quarantine(self.recipe[0], *what))
        self._paused_until = 0.0
        self._looked_at = now

    # --- callers ---

    def refused(self, now: float) -> WasmError | None:
        """Why no instance will come, if none is there either."""
        refusal = self.restarts.refusal(now)
        if refusal is None or refusal.standing is not Standing.QUARANTINED or self.roster.alive:
            return None
        return self.restarts.quarantined(refusal, now)

    def may_not_wait(self, lease: Lease, now: float, who: str | None) -> WasmError | None:
        """Why this caller is not let into the queue. `who`: who would wait for itself, if somebody would."""
        if self.roster.closed:
            return closed_error()
        if who is not None:
            return waits_for_itself(who)
        refused = self.refused(now)
        if refused is not None:
            return refused
        return refusals.full(self.roster, lease) if self.roster.full(lease.tenant) else None

    @property
    def there(self) -> int:
        """Instances that are there, or in use; not those that died while they idled, though nobody has looked yet."""
        return len(self.roster.leased) + len([slot for slot in self.roster.idle if slot.instance.alive])

    @property
    def settled(self) -> bool:
        """Whether all are there that are to be ready, or will not be."""
        return self.roster.closed or self.there >= self.roster.sizes.min or self.last_error is not None

    def ready(self) -> bool:
        """Whether all are there that are to be; raises why they will not be."""
        if self.roster.closed:
            raise closed_error()
        if self.there >= self.roster.sizes.min:
            return True
        if self.last_error is not None:
            raise self.last_error
        return False

    def reset(self) -> None:
        """Forget all failures."""
        self.restarts.reset()
        self.last_error = None
        self.roster.work = True

    def __repr__(self) -> str:
        roster = self.roster
        state = "closed" if roster.closed else refusals.state(roster)
        return f"{self.recipe[0].sha256[:12]}: {state}, {roster.waiting} calls wait"

    # --- instances ---

    def next_action(self, now: float, *, start: bool = True) -> Slot | bool:
        """As `Roster.next_action`. A start that it asks for is booked. `start`: whether one would be made now."""
        roster = self.roster
        refusal = self.restarts.refusal(now)
        # What this machine refuses is tried again at once for a call that has nothing else to wait for.
        paused = now < self._paused_until and (roster.alive > 0 or not roster.waiting)
        roster.startable = refusal is None and not paused
        action = roster.next_action(now, start=start)
        if action is True:
            self.restarts.start(now)
        return action

    def came(self, instance: Any, version: int, now: float) -> list[Lease]:
        """A start that was asked for came to this: whom it serves."""
        self.starts += 1
        self.last_error = None
        return self.roster.started(Slot(instance, version), now)

    def came_to_nothing(self, error: WasmError, version: int, now: float) -> list[Lease]:
        """A start that was asked for ended in this: who is to be told."""
        roster, told = self.roster, []
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
        self.stopping = self.stopping or error.cause is Cause.CLOSED  # the host is
        return told

    def lost(self, error: WasmError | None, now: float) -> None:
        """An instance is gone, by this. None: somebody left it half-way."""
        if error is None:
            self.restarts.abandoned(now)
        else:
            self.restarts.failed(now, error)
        self.roster.work = True

    def look_soon(self) -> None:
        """Somebody waits to know which of those that idle live: it is time to look."""
        self._looked_at = -math.inf

    def take_out_dead(self, now: float) -> list[Slot]:
        """Those that died while they idled, if it is time to look: say `lost` for each."""
        if now < self._looked_at + _TICK_S:
            return []
        self._looked_at = now
        dead = [slot for slot in self.roster.idle if not slot.instance.alive]
        for slot in dead:
            self.roster.remove(slot)
        return dead

    def swapped(self, recipe: Recipe, instance: Any, now: float) -> list[Lease]:
        """This is the first instance of a new version: whom it serves. CallError when the pool was closed meanwhile."""
        if self.roster.closed:
            raise closed_error()
        self.recipe = recipe
        self.restarts.reset()
        self.roster.swap()
        return self.roster.add(Slot(instance, self.roster.version), now)

    def pause_s(self, now: float) -> float:
        """Until something is to be done, as far as that is known."""
        refusal = self.restarts.refusal(now)
        due = min(now + _TICK_S, self.roster.next_look())
        if refusal is not None and refusal.until is not None:
            due = min(due, refusal.until)
        return max(0.0, due - now)


def recipe_of(module: WasmModule, imports: WasmImports | None, before: Recipe) -> Recipe:
    """What a swap asks for: None for the imports of `before`."""
    return module, before[1] if imports is None else imports


def not_started(exc: BaseException) -> WasmError:
    """Of a start that ended in something that is none of ours."""
    error = InstantiationError(f"an instance could not be started: {type(exc).__name__}", cause=Cause.HOST)
    error.__cause__ = exc
    return error


def again(error: WasmError) -> WasmError:
    """The same for one more caller: an exception object belongs to one raise."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


def closed_error() -> CallError:
    """What a call gets from a pool that is closed."""
    return CallError("the pool is closed", cause=Cause.CLOSED)


def waits_for_itself(who: str) -> CallError:
    """What one gets who would have to give back first what it waits for."""
    return CallError(
        f"no instance of the pool is free, and this {who}, which has one already or starts one, would wait for itself"
    )


def swap_in_swap() -> CallError:
    """What a start function gets that swaps the module which it is to be swapped for."""
    return CallError("a pool cannot be swapped by a host function of an instance that it starts for a swap")


def foreign_error() -> CallError:
    """What a call gets in a forked child of the pool's process."""
    return CallError("this pool belongs to the process that made it, not to a fork of it")
