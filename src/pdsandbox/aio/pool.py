"""`AsyncPool`: a `Pool` for the tasks of one event loop.

Here is what a caller's task does; whose turn it is lies in `roster`, and `keeper` starts and ends instances. Everything
happens in the loop's thread, so nothing is locked: what stands between two awaits is done at once. Whoever leaves while
it waits, or in the middle of a call, gives up its place or its instance on the way out.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .. import generation, refusals
from ..again import Attempt, is_absence
from ..errors import CallError, PoolFull, PoolTimeout, Quarantined, WasmError
from ..imports import WasmImports
from ..interfaces import Capability, WasmModule
from ..limits import config_of
from ..pool import GRACE_S
from ..restarts import RestartPolicy, Standing
from ..roster import Lease, Slot
from ..sizes import Sizes, check_seconds
from ..upkeep import closed_error, recipe_of, swap_in_swap, waits_for_itself
from ..values import WasmVal
from .belonging import Claim, Kind, belongs, check_loop, claims
from .ending import let_go, wait_gone, why_gone
from .hosted import inside
from .instance import AsyncInstance
from .keeper import Keeper, hand_over, tell
from .starters import held

if TYPE_CHECKING:
    from ..wasi import Wasi
    from .host import AsyncSupervisor

__all__ = ["AsyncPool"]


class AsyncPool:
    """Instances of one module, for the tasks of the event loop that it was made on; made by `AsyncSupervisor.pool`. See
    `Pool`. An asynchronous context manager that closes it.

    Cancelling a task that waits gives up its place. Cancelling one whose call runs ends that instance, unless its guest
    can be interrupted, and another one takes its place.
    """

    def __init__(
        self,
        host: AsyncSupervisor,
        loop: asyncio.AbstractEventLoop,
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
        self._loop = loop
        self._keeper = keeper = Keeper(host, loop, (module, imports), wasi, sizes, self._policy)
        self._roster = keeper.roster
        self._generation = generation.now
        self._swapping = asyncio.Lock()
        # Weakly: the books lead to the tasks of those who wait, and so to this pool.
        weakref.finalize(self, _abandon, weakref.ref(keeper)).atexit = False
        keeper.wake()

    def _own(self) -> None:
        check_loop("pool", self._loop, self._generation)

    # --- calls ---

    async def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as in `Pool`, and it ends waiting only
        tenant: str | int | None = None,
        idempotent: bool = False,
        default: Any = None,
    ) -> list[WasmVal] | Any:
        """See `Pool.call`."""
        self._own()
        refusals.unless_tenant(tenant)
        attempt = Attempt(self._host, wall_s, idempotent=idempotent)
        first: WasmError | None = None
        while True:
            lease = Lease(tenant)
            try:
                instance = await self._take(lease, timeout)
                result = await instance._call(func, args, fuel, attempt.wall_s, False, attempt)
            except BaseException as exc:
                lost = self._give(lease)
                if not isinstance(exc, WasmError):
                    raise
                if lost and attempt.began is None:
                    continue  # it ended before this call's turn in it, and so nothing has run
                if lost and attempt.again(exc, time.monotonic()):
                    first, attempt.began = exc, None
                    continue
                if self._policy.on_failure == "open" and (lost or lost is None) and is_absence(exc):
                    return default
                if first is not None and isinstance(exc, PoolFull | PoolTimeout | Quarantined):
                    raise first from exc
                raise
            finally:
                self._give(lease)
            self._served()
            return result

    def instance(self, *, timeout: float | None = None, tenant: str | int | None = None) -> Borrowed:
        """`async with pool.instance() as instance:`, as `Pool.instance`."""
        return Borrowed(self, timeout, tenant)

    # --- instances ---

    async def _take(self, lease: Lease, wait_s: float | None) -> AsyncInstance:
        """An instance that is not known to be dead."""
        while True:
            if not self._roster.take(lease):
                await self._wait(lease, wait_s)
            slot = lease.slot
            assert slot is not None
            instance: AsyncInstance = slot.instance
            if instance.alive:
                return instance
            # Nothing has run in it for this caller.
            self._give(lease)

    def _give(self, lease: Lease) -> bool | None:
        """Whatever `lease` has, or waits for, it does so no longer. Whether the instance that it had is gone; None: it
        had none."""
        slot, lost = lease.slot, None
        if slot is None and not lease.queued:
            return None
        if not belongs(self._loop):
            self._leave_behind(lease)
            return lost
        now = time.monotonic()
        if slot is None:
            granted = self._roster.leave(lease)
        else:
            lost = not slot.instance.alive
            if lost:
                self._keeper.lost(why_gone(slot.instance), now)
            granted = self._roster.give(lease, now, usable=not lost)
        self._follow_up(granted)
        return lost

    def _leave_behind(self, lease: Lease) -> None:
        """The task was thrown away, perhaps with its loop, and in another thread."""
        try:
            self._loop.call_soon_threadsafe(self._give, lease)
        except RuntimeError:  # the loop is closed: nobody comes any more
            if lease.slot is not None:
                let_go(lease.slot.instance)

    def _follow_up(self, granted: list[Lease]) -> None:
        hand_over(granted)
        if self._roster.work:
            self._keeper.wake()
        if self._roster.closed:
            self._keeper.changed()

    def _served(self) -> None:
        if self._keeper.restarts.trying:
            self._keeper.restarts.succeeded(time.monotonic())

    # --- waiting ---

    async def _wait(self, lease: Lease, wait_s: float | None) -> None:
        """In the queue, until `lease` has an instance."""
        allowed = self._timeout if wait_s is None else refusals.seconds(wait_s)
        roster, began = self._roster, time.monotonic()
        refused = self._keeper.may_not_wait(lease, began, "task" if self._for_itself(lease) else None)
        if refused is not None:
            raise refused
        waiter = lease.wake = self._loop.create_future()
        self._follow_up(roster.wait(lease))
        timer = None if allowed is None else self._loop.call_later(allowed, hand_over, (lease,))
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
        if lease.error is not None:
            raise lease.error
        if lease.slot is None:
            self._give(lease)
            raise refusals.late(roster, lease, allowed, time.monotonic() - began)

    def _for_itself(self, lease: Lease) -> bool:
        """Whether an instance may come only when this very caller gives one back."""
        if self._keeper.here:
            return True
        # Where instances wait for each other, a new one may wait for the very call that is asking.
        if Capability.INDEPENDENCE not in self._host.missing and self._roster.sure(lease.tenant):
            return False
        return bool(self._mine())

    def _mine(self) -> set[Slot]:
        """Those that the one who is asking has itself: borrowed, or in a call that a host function is asking from."""
        calling = {operation.handle for operation in inside.get() if operation.running}
        return {slot for slot in self._roster.leased if slot.instance._handle in calling or claims(slot, Kind.HAS)}

    # --- the rest ---

    async def wait_ready(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as in `Pool`
        """See `Pool.wait_ready`."""
        self._own()
        if timeout is not None:
            timeout = refusals.seconds(timeout)
        keeper = self._keeper
        if keeper.here:
            raise waits_for_itself("task")
        keeper.look_soon()
        keeper.wake()
        await keeper.until(lambda: keeper.settled, timeout)
        return keeper.ready()

    async def swap(self, module: WasmModule, imports: WasmImports | None = None) -> None:
        """See `Pool.swap`. Cancelled, it has changed nothing."""
        self._own()
        keeper = self._keeper
        if claims(keeper, Kind.SWAPS):
            raise swap_in_swap()
        async with self._swapping:
            if self._roster.closed:
                raise closed_error()
            recipe = recipe_of(module, imports, keeper.recipe)
            instance = await keeper.make(recipe, Kind.SWAPS)
            try:
                granted = keeper.swapped(recipe, instance, time.monotonic())
            except CallError:
                await instance.close()
                raise
            self._follow_up(granted)

    @property
    def standing(self) -> Standing:
        """Whether instances may be started, or why not now."""
        return self._keeper.restarts.standing(time.monotonic())

    def reset(self) -> None:
        """Forget its failures and end a quarantine."""
        self._own()
        self._keeper.reset()
        self._keeper.wake()

    async def close(self, grace_s: float = GRACE_S) -> None:
        """See `Pool.close`. Cancelled, it waits no longer, and goes on to its end: what still runs is ended at once.
        One whose loop is closed may be closed on any other."""
        grace_s = refusals.seconds(grace_s, "grace_s")
        if self._generation != generation.now:
            return  # the parent's instances are the parent's to end
        if self._loop.is_closed():
            await self._clear_away()
            return
        self._own()
        keeper, roster = self._keeper, self._roster
        tell(roster.close(), closed_error)
        keeper.wake()
        hurry: list[bool] = []

        def end() -> None:
            hurry.append(True)
            keeper.changed()

        mine = self._mine()
        job = keeper.spawn(self._close(lambda: bool(hurry) or mine.issuperset(roster.leased), grace_s))
        if not keeper.here:  # else the end of what is being started would wait for this
            await held(job, end)
            job.result()

    async def _close(self, drained: Callable[[], bool], grace_s: float) -> None:
        await self._keeper.until(drained, grace_s)
        left = list(self._roster.leased)
        for slot in left:
            let_go(slot.instance)
        self._keeper.stop()
        for slot in left:
            await wait_gone(slot.instance)
        await self._keeper.until(lambda: self._keeper.over)

    async def _clear_away(self) -> None:
        """The loop is closed."""
        roster, left = self._roster, list(self._roster.leased)
        roster.close()
        while isinstance(slot := roster.next_action(time.monotonic()), Slot):
            left.append(slot)
            roster.ended()
        for slot in left:
            let_go(slot.instance)
        for slot in left:
            await wait_gone(slot.instance)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return (
            "<AsyncPool of another process>" if self._generation != generation.now else f"<AsyncPool {self._keeper!r}>"
        )


def _abandon(kept: weakref.ref[Keeper]) -> None:
    keeper = kept()
    if keeper is not None:
        keeper.abandon()


class Borrowed:
    """What `AsyncPool.instance` returns: enter it to get the instance, leave it to give that back."""

    def __init__(self, pool: AsyncPool, timeout: float | None, tenant: str | int | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease = Lease(tenant)
        self._claim: Claim | None = None

    async def __aenter__(self) -> AsyncInstance:
        pool, lease = self._pool, self._lease
        pool._own()
        refusals.unless_tenant(lease.tenant)
        if lease.slot is not None or lease.queued:
            raise CallError("this instance is borrowed already: ask the pool for another one")
        try:
            instance = await pool._take(lease, self._timeout)
        except BaseException:
            pool._give(lease)
            raise
        self._claim = Claim(lease.slot, Kind.HAS)
        self._claim.begin()
        return instance

    async def __aexit__(
        self, _cls: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._claim is not None:
            self._claim.end()
        self._pool._give(self._lease)
        if exc is None:
            self._pool._served()
