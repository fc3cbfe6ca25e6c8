"""The warm call: one export's whole way from its arguments to its results, in one function.

While calls follow each other closely it is one write, a few reads and one unpacking, with all that no call changes at
hand in the function's own cells: looking it up at each call took a fifth of the supervisor's time. It is `Turns.run`
written out, around what sending and receiving come to then; whatever else happens is `Conversation`'s (wrong
arguments, an answer that is no result). A first call, and one that is very long, do not come here.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from .. import cargs, generation
from ..platform import os_
from ..protocol import messages as m
from . import monitor
from .calling import CLOSE_S, FIELDS, HEAD, WHERE_AT, Export, where
from .channel import SPIN_S
from .turns import Turns

#: `call(args, fuel, wall_s, plain)`: a list of WasmVals, or if `plain` what `func` returns.
WarmCall = Callable[[Any, int | None, float | None, bool], Any]

#: A longer request goes the longer way: there, writing it in pieces is nothing special.
REQUEST_BYTES: Final = 1 << 10
# How long ago a worker was looked at does not count while it slept; the housekeeper looks at those that sleep longer.
IDLE_S: Final = 0.25
# From a call that the GIL is taken from to one of the thread that gets it: that has to wake up.
CROWD_S: Final = 300e-6
# A worker spins for 50 us after an answer.
AWAKE_S: Final = 60e-6
# A wake-up takes 40 to 80 us.
WAKE_S: Final = 150e-6
_CALL: Final = m.CALL
_WHERE: Final = m.WHERE
_FREE: Final = m.FREE
_SPIN: Final = m.SPIN | m.FREE
_NOWHERE: Final = (0, 0)
_head: Final = HEAD.pack_into
_read: Final = os_.read_raw
_write: Final = os_.write_raw
_new: Final = object.__new__


def warm_call(turns: Turns, export: Export) -> WarmCall:
    """The function for one export, which the worker has numbered."""
    talk, limit_s, ours, lock = turns.talk, turns.limits.wall_s, turns.generation, turns.lock
    channel, handle, meter, memory, cores = talk.channel, talk.handle, talk.fuel, talk.memory, talk.cores
    acquire, release, is_ours, clock = lock.acquire, lock.release, handle.turn_is_ours, time.monotonic
    computing, between = cores.computing, channel.between
    block = ctypes.create_string_buffer(export.request_bytes)
    frame = memoryview(block).cast("B")
    writing = channel.writing, cargs.pointer(ctypes.addressof(block)), cargs.size(export.request_bytes)
    reading, view = channel.reading, channel.view
    number, payload, nbytes = export.number, export.request_payload, export.request_bytes
    fill, fill_plain = export.params.filler(frame, HEAD.size), export.params.plain_filler(frame, HEAD.size)
    reply_bytes, reply_head, unpack = export.reply_bytes, export.reply_head, export.unpack
    results, single, cls, put, plain_one = export.results, *export.results.only
    said_flags = said_budget = said_us = -1

    def call(args: Any, fuel: int | None, wall_s: float | None, plain: bool) -> Any:
        nonlocal said_flags, said_budget, said_us
        wall_s = limit_s if wall_s is None else turns.wall(wall_s)
        if ours != generation.now:
            raise turns.foreign()
        if is_ours():
            raise turns.reentered()
        try:
            if not acquire(False):
                turns.wait(wall_s)
            if handle.busy or handle.attention:
                turns.enter()
            if talk.closed:
                raise turns.closed_error()
            started = clock()
            if wall_s != talk.wall_s:
                talk.prepare(started, wall_s)
            unshared = meter.plain if fuel is None else None
            budget = meter.begin(fuel) if unshared is None else unshared
            gap = started - talk.answered_at
            free = len(computing) < cores.most or cores.free(started)
            spin = free and gap < AWAKE_S
            if free and not spin and talk.answered_at < cores.called_at > started - CROWD_S:
                # Other threads called until just now, and we have the GIL from one of them: it is worth more than a
                # core.
                spin, talk.answered_soon = True, False
            talk.flags = flags = memory.flag | (0 if not free else _SPIN if spin or gap < CLOSE_S else _FREE)
            packed, failure = False, None
            try:
                if channel.held:
                    raise TypeError
                if flags != said_flags or budget != said_budget or talk.wall_us != said_us:
                    said_flags = -1
                    _head(frame, 0, payload, _CALL, number, flags, budget, talk.wall_us)
                    said_budget, said_us, said_flags = budget, talk.wall_us, flags
                if plain and fill_plain is not None:
                    fill_plain(*args)
                else:
                    fill(args)
                packed = True
            except Exception as exc:
                failure = None if isinstance(exc, struct.error | TypeError) else exc
            if not packed:
                # Wrong arguments, whatever they raise. What this ends in is not raised while that is handled: it would
                # be chained to it.
                try:
                    result = talk.call(export, args, started, wall_s, budget, plain, failure)
                finally:
                    failure = None  # as in `Slots.encode`
                if handle.attention and talk.closed:
                    raise turns.closed_error()
                return result
            handle.busy = talk
            # What follows is `Channel.send` and `Channel.receive` for a worker that is there and answers soon. The GIL
            # is kept: giving it up for every read would make every other thread's call wait for ours.
            done = _write(*writing)
            # The worker is at work from here on, so this costs nothing.
            cores.called_at = started
            if not spin:
                # While it slept it did nothing that a look would show.
                if gap < IDLE_S:
                    talk.calm_until += gap
                # It was asleep, and most likely wakes up on this very core: it need not wait until we sleep.
                os_.give_way()
                # It may have answered meanwhile: then it did not sleep until now.
                talk.answered_at = clock()
            else:
                talk.answered_at = started
            if started > talk.calm_until:
                talk.prepare(started, wall_s)
            got = _read(*reading)
            watch: monitor.Watch | None = None
            if got < 0 and done == nbytes:
                if spin and talk.answered_soon:
                    for _ in between.quick:
                        got = _read(*reading)
                        if got >= 0:
                            break
                if got < 0 and spin:
                    # One that may have fallen asleep meanwhile is worth waiting for once: the next answer is soon.
                    spin_s = SPIN_S if talk.answered_soon else WAKE_S
                    got = between.read(*reading, clock() + spin_s)
                    talk.answered_at = clock()
                    talk.answered_soon = talk.answered_soon or got >= 0
                if got < 0:
                    talk.answered_soon = False
                    watch = talk.watch(started, wall_s, call=True)
                    channel.wait_reply(watch)
                    got = _read(*reading)
                    talk.answered_at = clock()
            if got == reply_bytes and not channel.interrupted:
                fields = unpack(view)
                if fields[0] == reply_head and fields[1] <= budget and done == nbytes:
                    if unshared is None:
                        meter.settle(fields[1])
                    else:
                        meter.used += fields[1]
                    memory.where = where(view, WHERE_AT) if flags & _WHERE else _NOWHERE
                    handle.busy = None
                    if not single:
                        result = results.plain(fields[FIELDS:]) if plain else results.make(fields[FIELDS:])
                    elif not plain:
                        value = _new(cls)
                        put(value, fields[FIELDS])
                        result = [value]
                    else:
                        result = fields[FIELDS] if plain_one is None else plain_one(fields[FIELDS])
                    if handle.attention and talk.closed:
                        raise turns.closed_error()
                    return result
            if watch is None:
                watch = talk.watch(started, wall_s, call=True)
            channel.resume(_CALL, frame, done, got, watch)
            result = talk.finish(export, budget, watch, plain=plain)
            if handle.attention and talk.closed:
                raise turns.closed_error()
            return result
        finally:
            try:
                if handle.busy or handle.attention:
                    turns.leave()
            finally:
                try:
                    release()
                except RuntimeError:
                    pass  # it was never ours

    return call
