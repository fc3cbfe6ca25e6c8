"""`poll_oneoff`: waiting for clocks and descriptors. Only the end of the process interrupts it, so a deadline does."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Final, NamedTuple

from . import abi
from .clocks import LONGEST_S
from .memory import Errno
from .system import System
from .table import File, Stdin, Stdout

# Each takes about 200 bytes here, and a descriptor to wait for can be named but once to any use.
_MOST: Final = 4096
# No clock shows more.
_U64: Final = 2**64 - 1


class _Wanted(NamedTuple):
    """One subscription: what it is for, in nanoseconds of the monotonic clock or as a descriptor of ours."""

    userdata: int
    kind: int
    due: int | None
    fd: int | None
    hangup: bool = False


def poll_oneoff(system: System, subscriptions: int, events: int, count: int, out: int) -> None:
    memory = system.memory
    memory.address(out, 4, 4)
    if not count:
        raise Errno(abi.INVAL)
    memory.address(subscriptions, count * abi.subscription.size, 8)
    memory.address(events, count * abi.event.size, 8)
    if count > _MOST:
        raise Errno(abi.NOMEM)
    raw = memory.read(subscriptions, count * abi.subscription.size)
    wanted = [_wanted(system, *fields) for fields in abi.subscription.iter_unpack(raw)]
    happened = _wait(system, wanted)
    memory.write(
        events,
        b"".join(
            [
                abi.event.pack(one.userdata, 0, one.kind, one.kind != abi.EVENT_CLOCK, abi.HANGUP if one.hangup else 0)
                for one in happened
            ]
        ),
        8,
    )
    memory.write_u32(out, len(happened))


def _wanted(
    system: System, userdata: int, kind: int, number: int, timeout: int, _precision: int, flags: int
) -> _Wanted:
    if kind == abi.EVENT_CLOCK:
        if number not in (abi.REALTIME, abi.MONOTONIC) or flags & ~abi.ABSTIME:
            raise Errno(abi.INVAL)
        if flags & abi.ABSTIME:
            timeout = max(0, timeout - system.clocks.peek(number))
        return _Wanted(userdata, kind, min(system.clocks.peek(abi.MONOTONIC) + timeout, _U64), None)
    found = system.table.any(number)
    if kind == abi.EVENT_READ and isinstance(found, Stdin):
        return _Wanted(userdata, kind, None, found.stream.fd)
    if kind == abi.EVENT_WRITE and isinstance(found, Stdout):
        return _Wanted(userdata, kind, None, found.stream.fd)
    if kind not in (abi.EVENT_READ, abi.EVENT_WRITE):
        raise Errno(abi.INVAL)
    if not isinstance(found, File):
        raise Errno(abi.BADF)
    # A file is always ready; what it tells in the event is whether there is anything left to read.
    at_end = kind == abi.EVENT_READ and found.position >= os.fstat(found.fd).st_size
    return _Wanted(userdata, kind, None, None, at_end)


def _wait(system: System, wanted: list[_Wanted]) -> list[_Wanted]:
    """Those that have happened, at least one, in their order."""
    clocks = system.clocks
    dues = [one.due for one in wanted if one.due is not None]
    due = min(dues, default=None)
    poll = system.standard.poll
    events: dict[int, int] = {}
    for one in wanted:
        if one.fd is not None:
            events[one.fd] = events.get(one.fd, 0) | (select.POLLIN if one.kind == abi.EVENT_READ else select.POLLOUT)
    at_once = any(one.due is None and one.fd is None for one in wanted)
    ready: dict[int, int] = {}
    while True:
        if events:
            ready = poll(events, 0 if at_once or not clocks.real else _patience_ms(system, due))
        if not ready and not at_once and due is not None and not _passed(system, due):
            if events and clocks.real:
                continue
            # A clock of the guest's own jumps to where the guest would wake up.
            clocks.sleep(due - clocks.peek(abi.MONOTONIC))
        now = clocks.peek(abi.MONOTONIC)
        happened = [one for one in wanted if _has_happened(one, ready, now)]
        if happened:
            return happened
        if not clocks.real and events:  # no clock among them: then only the world outside can wake the guest
            ready = poll(events, None)
            return [one for one in wanted if _has_happened(one, ready, now)]


def _passed(system: System, due: int) -> bool:
    return system.clocks.peek(abi.MONOTONIC) >= due


def _patience_ms(system: System, due: int | None) -> int | None:
    """Rounded up: not to spin through the last millisecond."""
    if due is None:
        return None
    left = max(0, due - system.clocks.peek(abi.MONOTONIC))
    return min(-(-left // 1_000_000), int(LONGEST_S * 1000))


def _has_happened(one: _Wanted, ready: dict[int, int], now: int) -> bool:
    if one.due is not None:
        return now >= one.due
    if one.fd is None:
        return True
    mask = select.POLLIN if one.kind == abi.EVENT_READ else select.POLLOUT
    return bool(ready.get(one.fd, 0) & (mask | select.POLLHUP | select.POLLERR | select.POLLNVAL))


CALLS: Final[dict[str, Callable[..., None]]] = {"poll_oneoff": poll_oneoff}
