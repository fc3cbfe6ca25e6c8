"""Who gets which instance next, which are to be started, and which are to end: a pool's books, as a state machine.

Pure: it starts, ends and calls nothing, knows no clock and no lock. Whoever shares one between threads holds a lock
around each method. `Lease` is what a caller holds, `Slot` an instance as the books know it.

A tenant's instance never serves another tenant: it may remember. Tenants who wait take turns, one call each, and where
every instance is taken, one that idles for somebody else ends to make room.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Any, Final

from .sizes import Sizes

__all__ = ["Lease", "Roster", "Slot"]

# No instance serves so often.
_ENDLESS: Final = 2**63 - 1


class Slot:
    """An instance: whose it is, how often it was used, and since when it idles."""

    __slots__ = ("calls", "idle_since", "instance", "lease", "tenant", "version")

    def __init__(self, instance: Any, version: int) -> None:
        self.instance = instance
        self.version = version
        self.calls = 0
        self.idle_since = 0.0
        self.tenant: Hashable = None
        self.lease: Lease | None = None


class Lease:
    """One caller's claim: `slot` while it has an instance. `wake` is what it waits for, if it does, and `error` what it
    gets instead; both are other people's business."""

    __slots__ = ("error", "queued", "slot", "tenant", "thread", "wake")

    def __init__(self, tenant: Hashable = None, thread: int = 0) -> None:
        self.tenant = tenant
        self.thread = thread
        self.slot: Slot | None = None
        self.queued = False
        self.wake: Any = None
        self.error: Any = None


class _Account:
    """One tenant: `running` instances, `idle` ones that are its own (newest last), and who waits."""

    __slots__ = ("idle", "running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.idle: list[Slot] = []
        self.waiting: deque[Lease] = deque()


class Roster:
    """See the module's text.

    version   of the module: an instance of another one is not used again
    closed    nobody gets an instance any more
    startable whether a start that is wanted may be made; while not, nobody's instance ends for another's sake
    work      there may be something to start or to end: `next_action` tells
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.version = 0
        self.closed = False
        self.startable = True
        self.work = True
        self.waiting = 0
        self.starting = 0
        self.ending = 0  # those in `_to_end`, and those that are being ended
        self.leased: dict[Slot, None] = {}
        self._to_end: deque[Slot] = deque()
        self._idle: dict[Slot, None] = {}  # the longest idle first
        self._fresh: list[Slot] = []  # of these, those that have served nobody
        self._accounts: dict[Hashable, _Account] = {}
        self._ring: dict[Hashable, _Account] = {}  # tenants that wait and may have one more; whose turn it is first
        self._running_limit: float = math.inf if sizes.tenant_running is None else sizes.tenant_running
        self._queue_limit: float = math.inf if sizes.tenant_queue is None else sizes.tenant_queue
        self._calls_limit = 1 if sizes.reset == "each_call" else sizes.max_calls or _ENDLESS

    # --- what there is ---

    @property
    def alive(self) -> int:
        """Instances that serve, may serve, or are being started."""
        return len(self._idle) + len(self.leased) + self.starting

    @property
    def total(self) -> int:
        """The same, and those that are on their way out."""
        return self.alive + self.ending

    @property
    def idle(self) -> list[Slot]:
        """Instances that wait for a call, the longest idle first."""
        return list(self._idle)

    def of_tenant(self, tenant: Hashable) -> tuple[int, int]:
        """How many of its calls run, and how many wait."""
        account = self._accounts.get(tenant)
        return (0, 0) if account is None else (account.running, len(account.waiting))

    # --- callers ---

    def take(self, lease: Lease) -> bool:
        """Give `lease` an instance, if there is one that it may have now; those who came before it go first."""
        tenant = lease.tenant
        account = self._accounts.get(tenant)
        if account is None:
            slots = self._fresh
        elif account.waiting or account.running >= self._running_limit:
            return False
        else:
            slots = account.idle or self._fresh
        if not slots:
            return False
        if account is None:
            account = self._accounts[tenant] = _Account()
        # `_lend` written out: every call comes by here.
        slot = slots.pop()
        del self._idle[slot]
        self.leased[slot] = None
        account.running += 1
        slot.tenant = tenant
        slot.lease = lease
        lease.slot = slot
        return True

    @property
    def queue_full(self) -> bool:
        """Whether all wait who may. Who waits for an instance that `max` has room for is in no queue."""
        return self.waiting - max(0, self.sizes.max - len(self.leased)) >= self.sizes.queue

    def full(self, tenant: Hashable) -> bool:
        """Whether one caller more is too many."""
        running, waiting = self.of_tenant(tenant)
        room = max(0, min(self._running_limit, self.sizes.max) - running)
        return self.queue_full or waiting - room >= self._queue_limit

    def sure(self, tenant: Hashable) -> bool:
        """Whether one caller more will get an instance without anybody's giving one back."""
        running, waiting = self.of_tenant(tenant)
        room = self.sizes.max - len(self.leased)
        return self.waiting < room and running + waiting < self._running_limit

    def wait(self, lease: Lease) -> list[Lease]:
        """Put `lease` into the queue. Returns, as others do, whoever got an instance by that."""
        account = self._accounts.get(lease.tenant)
        if account is None:
            account = self._accounts[lease.tenant] = _Account()
        account.waiting.append(lease)
        lease.queued = True
        self.waiting += 1
        if account.running < self._running_limit:
            self._ring.setdefault(lease.tenant, account)
        return self._dispatch()

    def leave(self, lease: Lease) -> list[Lease]:
        """Take a `lease` that was not served out of the queue, if it is there."""
        if lease.queued:
            account = self._accounts[lease.tenant]
            account.waiting.remove(lease)
            self._left(lease, account)
            return self._dispatch()
        return []

    def give(self, lease: Lease, now: float, *, usable: bool = True) -> list[Lease]:
        """`lease` is done with its instance, which lives on if it is `usable`."""
        slot = lease.slot
        if slot is None:
            return []
        account = self._accounts[lease.tenant]
        lease.slot = slot.lease = None
        del self.leased[slot]
        account.running -= 1
        slot.calls = calls = slot.calls + 1
        if usable and calls < self._calls_limit and slot.version == self.version and not self.closed:
            slot.idle_since = now
            self._idle[slot] = None
            account.idle.append(slot)
            if not self.waiting:
                return []
        else:
            self._end(slot)
        if account.waiting:
            self._ring.setdefault(lease.tenant, account)
        elif not account.running and not account.idle:
            self._forget(lease.tenant, account)
        return self._dispatch()

    # --- starts and ends ---

    def next_action(self, now: float, *, start: bool = True) -> Slot | bool:
        """What to do next: end this Slot (then say `ended`), True: start one (`started` or `start_failed`), False:
        nothing before `next_look`. `start`: whether there is anybody to start one now."""
        sizes = self.sizes
        if not self.closed:
            if (
                start
                and self.startable
                and self.total < sizes.max
                and (self.alive < sizes.min or self._needing(sizes.max) > self.starting)
            ):
                self.starting += 1
                return True
            if sizes.max_idle_s is not None:
                while self._idle and self.alive > sizes.min:
                    oldest = next(iter(self._idle))
                    if oldest.idle_since + sizes.max_idle_s > now:
                        break
                    self._drop(oldest)
        if self._to_end:
            return self._to_end.popleft()
        self.work = False
        return False

    def next_look(self) -> float:
        """When an idle instance will have idled for too long."""
        sizes = self.sizes
        if sizes.max_idle_s is None or not self._idle or self.alive <= sizes.min:
            return math.inf
        return next(iter(self._idle)).idle_since + sizes.max_idle_s

    def started(self, slot: Slot, now: float) -> list[Lease]:
        """A start that was asked for has come to this."""
        self.starting -= 1
        return self.add(slot, now)

    def add(self, slot: Slot, now: float) -> list[Lease]:
        """One that was started unasked."""
        self.work = True
        if self.closed or slot.version != self.version:
            self._end(slot)
            return []
        slot.idle_since = now
        self._idle[slot] = None
        self._fresh.append(slot)
        return self._dispatch()

    def start_failed(self) -> Lease | None:
        """A start that was asked for came to nothing: who is to be told, out of the queue; None: others may serve."""
        self.starting -= 1
        self.work = True
        return None if self.alive or not self._ring else self._next_waiting()

    def ended(self) -> None:
        """One that was to end has ended."""
        self.ending -= 1
        self.work = True

    def remove(self, slot: Slot) -> None:
        """An idle one is dead."""
        if slot in self._idle:
            self._drop(slot)

    def swap(self) -> None:
        """From now on there is a new version of the module."""
        self.version += 1
        for slot in list(self._idle):
            self._drop(slot)

    def refuse(self) -> list[Lease]:
        """Everybody who waits, out of the queue."""
        refused = [lease for account in self._accounts.values() for lease in account.waiting]
        for lease in refused:
            account = self._accounts[lease.tenant]
            account.waiting.popleft()
            self._left(lease, account)
        return refused

    def close(self) -> list[Lease]:
        """Nobody gets an instance any more; who waited for one."""
        self.closed = True
        for slot in list(self._idle):
            self._drop(slot)
        self.work = True
        return self.refuse()

    # --- the rest ---

    def _lend(self, slot: Slot, lease: Lease, account: _Account) -> None:
        """`slot`, which its list has lost already."""
        del self._idle[slot]
        self.leased[slot] = None
        account.running += 1
        slot.tenant = lease.tenant
        slot.lease = lease
        lease.slot = slot

    def _dispatch(self) -> list[Lease]:
        """Serve those who wait, in turn; then have what idles for others end, if that is what they wait for."""
        granted: list[Lease] = []
        if not self._ring:
            return granted
        self.work = True
        served = True
        while served:
            served, needing = False, 0
            coming = self.starting + max(0, self.sizes.max - self.alive)
            for tenant, account in self._ring.items():
                slots = account.idle or self._fresh
                if slots:
                    lease = account.waiting.popleft()
                    self._lend(slots.pop(), lease, account)
                    del self._ring[tenant]
                    if account.waiting:
                        self._ring[tenant] = account
                    self._left(lease, account)
                    granted.append(lease)
                    served = True
                    break
                needing += self._claims(account)
                if self.startable and needing > coming:
                    # Whose turn it is gets the instance that a later one could have at once.
                    break
        if self.startable:
            lacking = self._needing(self.sizes.max) - self.starting
            for slot in list(self._idle)[: max(0, lacking - max(0, self.sizes.max - self.alive))]:
                self._drop(slot)
        return granted

    def _claims(self, account: _Account) -> int:
        """How many instances more a tenant that waits could use at once."""
        return int(min(len(account.waiting), self._running_limit - account.running))

    def _needing(self, most: int) -> int:
        """How many instances more those who wait could use at once; at most `most`."""
        needing = 0
        for account in self._ring.values():
            needing += self._claims(account)
            if needing >= most:
                return most
        return needing

    def _next_waiting(self) -> Lease:
        """Out of the queue, whose turn it is."""
        tenant, account = next(iter(self._ring.items()))
        lease = account.waiting.popleft()
        del self._ring[tenant]
        if account.waiting:
            self._ring[tenant] = account
        self._left(lease, account)
        return lease

    def _left(self, lease: Lease, account: _Account) -> None:
        """`lease` waits no longer."""
        lease.queued = False
        self.waiting -= 1
        if not account.waiting or account.running >= self._running_limit:
            self._ring.pop(lease.tenant, None)
        if not account.waiting and not account.running and not account.idle:
            self._forget(lease.tenant, account)

    def _forget(self, tenant: Hashable, account: _Account) -> None:
        """Nothing is known of this tenant: there may be any number of them."""
        if self._accounts.get(tenant) is account:
            del self._accounts[tenant]

    def _drop(self, slot: Slot) -> None:
        """An idle one is to end."""
        del self._idle[slot]
        if slot in self._fresh:
            self._fresh.remove(slot)
        else:
            account = self._accounts[slot.tenant]
            account.idle.remove(slot)
            if not account.idle and not account.running and not account.waiting:
                self._forget(slot.tenant, account)
        self._end(slot)

    def _end(self, slot: Slot) -> None:
        self.ending += 1
        self._to_end.append(slot)
        self.work = True
