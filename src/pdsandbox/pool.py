"""`Pool`: instances of one module that are ready before they are asked for, and callers who wait for one in turn.

Over the interface only, so it works with every host. Here is what a caller does in its own thread; whose turn it is
lies in `roster`, and `keeper`'s thread starts and ends instances. A call is made once; one whose fate is not known is
not made again, unless its caller said that it may be.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from . import generation, refusals
from .again import Attempt, is_absence
from .errors import CallError, PoolFull, PoolTimeout, Quarantined, WasmError
from .imports import WasmImports
from .interfaces import Capability, WasmHost, WasmInstance, WasmModule
from .keeper import Keeper, hand_over, tell
from .limits import config_of
from .restarts import RestartPolicy, Standing
from .roster import Lease, Slot
from .sizes import Sizes, check_seconds
from .upkeep import closed_error, foreign_error, recipe_of, swap_in_swap, waits_for_itself
from .values import WasmVal

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["Pool"]

#: As long as a call may take by default: those that run then come to their own end.
GRACE_S: Final = 5.0


class Pool:
    """Instances of one module; made by `WasmHost.pool`. Any thread may use it. A context manager that closes it."""

    def __init__(
        self,
        host: WasmHost,
        module: WasmModule,
        imports: WasmImports | None,
        sizes: Sizes,
        *,
        timeout: float | None,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
    ) -> None:
        self._timeout = None if timeout is None else check_seconds("timeout", timeout)
        self._policy = config_of("restart", restart, RestartPolicy)
        self._host = host
        self._sizes = sizes
        self._keeper = keeper = Keeper(host, module, imports, wasi, sizes, self._policy)
        self._roster = keeper.roster
        self._restarts = keeper.restarts
        self._lock = keeper.lock
        self._generation = generation.now
        self._swapping = threading.RLock()
        self._swaps: Callable[[], bool] = self._swapping._is_owned  # type: ignore[attr-defined] # as Condition does
        weakref.finalize(self, keeper.abandon).atexit = False
        keeper.start()

    # --- calls ---

    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
        timeout: float | None = None,
        tenant: str | int | None = None,
        idempotent: bool = False,
        default: Any = None,
    ) -> list[WasmVal] | Any:
        """As `WasmInstance.call`, in whichever instance is free.

        timeout     seconds to wait for an instance, which `wall_s` does not count; None: the pool's
        tenant      whose call it is: instances that have served it serve nobody else, and tenants who wait take turns
        idempotent  the call may be made twice: if the instance is lost in it, it is made once more in another one,
                    within what is left of its `wall_s`
        default     what it returns with `on_failure="open"`, instead of raising Quarantined or a failure

        Raises PoolFull, PoolTimeout and Quarantined, before anything has run; CallError, CLOSED, after `close`.
        """
        lease = Lease(tenant, get_ident())
        attempt = Attempt(self._host, wall_s, idempotent=True) if idempotent else None
        try:
            try:
                slot = self._take(lease, timeout)
                if attempt is not None:
                    attempt.began = monotonic()
                result = slot.instance.call(func, args, fuel=fuel, wall_s=wall_s)
            except BaseException as exc:
                lost = self._after(lease, exc)
                if not isinstance(exc, WasmError):
                    raise
                if lost and attempt is not None and attempt.again(exc, monotonic()):
                    left_s = attempt.wall_s
                    try:
                        return self.call(
                            func, args, fuel=fuel, wall_s=left_s, timeout=timeout, tenant=tenant, default=default
                        )
                    except (PoolFull, PoolTimeout, Quarantined) as refusal:
                        raise exc from refusal
                if self._policy.on_failure == "open" and (lost or lost is None) and is_absence(exc):
                    return default
                raise
        finally:
            self._give(lease)
        if self._restarts.trying:
            self._served()
        return result

    def instance(self, *, timeout: float | None = None, tenant: str | int | None = None) -> Borrowed:
        """`with pool.instance() as instance:` for several calls, or memory, of the same instance, which is then this
        caller's alone; `timeout` and `tenant` as in `call`. It counts as one call. Do not keep the instance."""
        return Borrowed(self, timeout, tenant)

    # --- instances ---

    def _take(self, lease: Lease, timeout: float | None) -> Slot:
        """An instance that is not known to be dead."""
        if self._generation != generation.now:
            raise foreign_error()
        refusals.unless_tenant(lease.tenant)
        while True:
            with self._lock:
                self._roster.take(lease)
            slot = lease.slot
            if slot is None:
                self._wait(lease, timeout)
                slot = lease.slot
                assert slot is not None
            if slot.instance.alive:
                return slot
            # Nothing has run in it for this caller.
            self._lose(lease, slot.instance._why_gone())

    def _give(self, lease: Lease) -> None:
        """Whatever `lease` has, or waits for, it does so no longer."""
        roster = self._roster
        with self._lock:
            if lease.slot is not None:
                granted = roster.give(lease, monotonic())
            elif lease.queued:
                granted = roster.leave(lease)
            else:
                return
        if granted or roster.work or roster.closed:
            self._follow_up(granted)

    def _lose(self, lease: Lease, error: WasmError | None) -> None:
        """Its instance is gone."""
        with self._lock:
            self._keeper.lost(error, monotonic())
            granted = self._roster.give(lease, monotonic(), usable=False)
        self._follow_up(granted)

    def _after(self, lease: Lease, error: BaseException) -> bool | None:
        """Whether the instance was lost in what ended with `error`; None: there was none."""
        slot = lease.slot
        if slot is None:
            return None
        if slot.instance.alive:
            return False
        known = error if isinstance(error, WasmError) else None
        self._lose(lease, known)
        return True

    def _follow_up(self, granted: list[Lease]) -> None:
        hand_over(granted)
        if self._roster.work:
            self._keeper.wake()
        if self._roster.closed:
            self._keeper.drained.set()

    def _served(self) -> None:
        with self._lock:
            self._keeper.restarts.succeeded(monotonic())

    # --- waiting ---

    def _wait(self, lease: Lease, timeout: float | None) -> None:
        """In the queue, until `lease` has an instance."""
        allowed = self._timeout if timeout is None else refusals.seconds(timeout)
        wake = lease.wake = threading.Lock()
        wake.acquire()
        began = monotonic()
        with self._lock:
            roster = self._roster
            itself = self._keeper.here or (not self._sure(lease) and self._has_one(lease.thread))
            refused = self._keeper.may_not_wait(lease, began, "thread" if itself else None)
            if refused is not None:
                raise refused
            granted = roster.wait(lease)
        self._follow_up(granted)
        if not wake.acquire(timeout=-1 if allowed is None else allowed):
            with self._lock:
                if lease.queued:
                    granted = roster.leave(lease)
                    late = refusals.late(roster, lease, allowed, monotonic() - began)
                else:
                    late = None  # just now
            if late is not None:
                self._follow_up(granted)
                raise late
            wake.acquire()
        if lease.error is not None:
            error: WasmError = lease.error
            lease.error = None
            raise error

    def _sure(self, lease: Lease) -> bool:
        """Whether an instance comes without anybody's giving one back. Where instances wait for each other, a new one
        may wait for the very call that is asking."""
        return Capability.INDEPENDENCE not in self._host.missing and self._roster.sure(lease.tenant)

    def _has_one(self, thread: int) -> bool:
        return any(slot.lease is not None and slot.lease.thread == thread for slot in self._roster.leased)

    # --- the rest ---

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until `min` instances are there, or in use; whether they are within `timeout` seconds. Raises what the
        start of one ended in, Quarantined, and CallError, CLOSED."""
        if timeout is not None:
            timeout = refusals.seconds(timeout)
        keeper = self._keeper
        if keeper.here:
            raise waits_for_itself("thread")
        keeper.look_soon()
        keeper.wake()
        with keeper.outcome:
            keeper.outcome.wait_for(lambda: keeper.settled, timeout)
            return keeper.ready()

    def swap(self, module: WasmModule, imports: WasmImports | None = None) -> None:
        """Serve with this module from now on: a call that begins after this returned runs in it. No call is lost:
        those that run come to their end in the old one, and those that wait get the new one. `imports`: None for the
        same. There is one instance more than `max` meanwhile.

        Raises what the start of an instance ends in: then everything is as before.
        """
        if self._generation != generation.now:
            raise foreign_error()
        if self._swaps():
            raise swap_in_swap()
        keeper = self._keeper
        with self._swapping:
            if self._roster.closed:
                raise closed_error()
            recipe = recipe_of(module, imports, keeper.recipe)
            instance = keeper.make(recipe)
            try:
                with self._lock:
                    granted = keeper.swapped(recipe, instance, monotonic())
            except CallError:
                instance.close()
                raise
            self._follow_up(granted)

    @property
    def standing(self) -> Standing:
        """Whether instances may be started, or why not now."""
        with self._lock:
            return self._keeper.restarts.standing(monotonic())

    def reset(self) -> None:
        """Forget its failures and end a quarantine."""
        with self._lock:
            self._keeper.reset()
        self._keeper.wake()

    def close(self, grace_s: float = GRACE_S) -> None:
        """Refuse every call from now on, those that wait included (CallError, CLOSED), let those that run go on for
        `grace_s` seconds, and end all instances. Twice is allowed. What this very thread has is not waited for."""
        grace_s = refusals.seconds(grace_s, "grace_s")
        if self._generation != generation.now:
            return  # the parent's instances are the parent's to end
        deadline = monotonic() + grace_s
        keeper, roster = self._keeper, self._roster
        with self._lock:
            told = roster.close()
            keeper.outcome.notify_all()
        tell(told, closed_error)
        keeper.wake()
        try:
            while self._others_run() and keeper.drained.wait(max(0.0, deadline - monotonic())):
                pass
        finally:
            with self._lock:
                left = list(roster.leased)
            for slot in left:
                slot.instance.close()
            keeper.leave()

    def _others_run(self) -> bool:
        """Whether somebody else has an instance."""
        with self._lock:
            self._keeper.drained.clear()
            me = get_ident()
            return any(slot.lease is not None and slot.lease.thread != me for slot in self._roster.leased)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._generation != generation.now:
            return "<Pool of another process>"
        with self._lock:
            return f"<Pool {self._keeper!r}>"


class Borrowed:
    """What `Pool.instance` returns: enter it to get the instance, leave it to give that back."""

    def __init__(self, pool: Pool, timeout: float | None, tenant: str | int | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease = Lease(tenant)

    def __enter__(self) -> WasmInstance:
        lease = self._lease
        if lease.slot is not None:
            raise CallError("this instance is borrowed already: ask the pool for another one")
        lease.thread = get_ident()
        try:
            instance: WasmInstance = self._pool._take(lease, self._timeout).instance
        except BaseException:
            self._pool._give(lease)
            raise
        return instance

    def __exit__(self, _cls: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None) -> None:
        pool, lease = self._pool, self._lease
        slot = lease.slot
        try:
            if slot is not None and not slot.instance.alive:
                pool._lose(lease, slot.instance._why_gone())
        finally:
            pool._give(lease)
        if exc is None and pool._keeper.restarts.trying:
            pool._served()
