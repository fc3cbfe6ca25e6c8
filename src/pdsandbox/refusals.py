"""What a caller is told whom a pool has no instance for: `PoolFull` and `PoolTimeout`, with the numbers of that moment,
and what one is told who asks for what cannot be.

Pure: whoever asks holds the lock that the books are under.
"""

from __future__ import annotations

from typing import Any

from .errors import CallError, PoolFull, PoolTimeout
from .roster import Lease, Roster
from .sizes import check_seconds
from .text import quoted

__all__ = ["full", "late", "seconds", "state", "unless_tenant"]


def full(roster: Roster, lease: Lease) -> PoolFull:
    """For one that may not even wait."""
    sizes = roster.sizes
    running, waiting = roster.of_tenant(lease.tenant)
    limit, observed, which = sizes.queue, roster.waiting, f": {roster.waiting} wait (queue={sizes.queue})"
    if not roster.queue_full and sizes.tenant_queue is not None:
        limit, observed = sizes.tenant_queue, waiting
        which = f" for {_named(lease)}: {running} of its calls run, and {waiting} wait (tenant_queue={limit})"
    text = f"the pool is full{which}; {state(roster)}"
    return PoolFull(text, limit=limit, observed=observed, **_numbers(roster, lease))


def late(roster: Roster, lease: Lease, allowed_s: float | None, waited_s: float) -> PoolTimeout:
    """For one that has waited for as long as it was to."""
    text = f"no instance of the pool was free within {allowed_s:g} s; {state(roster)}, {roster.waiting} more wait"
    return PoolTimeout(text, limit=allowed_s, observed=waited_s, waited_s=waited_s, **_numbers(roster, lease))


def state(roster: Roster) -> str:
    """How much of it is in use."""
    return f"{len(roster.leased)} of {roster.total} instances are in use (max={roster.sizes.max})"


def seconds(value: float, name: str = "timeout") -> float:
    """`value`, if it is a number of seconds to wait; else CallError."""
    try:
        return check_seconds(name, value)
    except ValueError as exc:
        raise CallError(str(exc)) from None


def unless_tenant(tenant: object) -> None:
    """CallError for what names no tenant."""
    if tenant is not None and not isinstance(tenant, str | int):
        raise CallError(f"tenant must be a str or an int, not {type(tenant).__name__}")


def _numbers(roster: Roster, lease: Lease) -> dict[str, Any]:
    return {
        "waiting": roster.waiting,
        "running": len(roster.leased),
        "instances": roster.total,
        "tenant": lease.tenant,
    }


def _named(lease: Lease) -> str:
    tenant = lease.tenant
    return "callers without a tenant" if tenant is None else f"tenant {quoted(str(tenant))}"
