"""Which instances are in which worker, and to which a new one goes. Bookkeeping: nothing here waits for a worker.

With isolation "instance" each worker has one instance in its life. With "module" those of the same bytes share one, as
long as there is room in it; the last to leave ends it. A worker is registered weakly: what keeps it are its places.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Final

from ..protocol import messages as m
from . import monitor
from .channel import Channel
from .handle import Handle

__all__ = ["MOST_INSTANCES", "Place", "Sharing", "Worker"]

#: In one worker. Its address space is limited to what the memories of so many may reserve (4 TiB, with 8 memories of 5
#: GiB each), and half of the limit on its memory is gone at less than that: an idle instance takes 0.2 MiB and more.
MOST_INSTANCES: Final = 100
# Exports are numbered by 32 bits, and never again.
_MOST_EXPORTS: Final = 1 << 31


class Worker:
    """A worker process and the instances in it.

    spare  it lacks the module, which goes along with the first LOAD
    """

    def __init__(self, handle: Handle, channel: Channel, *, spare: bool, rss_bytes: int | None) -> None:
        self.handle = handle
        self.channel = channel
        self.spare = spare
        self._rss_bytes = rss_bytes
        self._lock = threading.Lock()
        self._places: set[int] = set()  # by id: a set of themselves would keep them
        self._over = False
        handle.owner = weakref.ref(self)

    def join(self) -> Place | None:
        """Room for one more instance; None when there is none, or the worker is at its end."""
        with self._lock:
            if self._over or not self._has_room():
                return None
            place = Place(self)
            self._places.add(id(place))
            return place

    @property
    def instances(self) -> int:
        """How many are in it, or about to be."""
        return len(self._places)

    def _has_room(self) -> bool:
        if not self._places:
            return True
        few = len(self._places) < MOST_INSTANCES and self.channel.exports < _MOST_EXPORTS
        return few and self.handle.alive and self.handle.half_empty(self._rss_bytes)

    def leave(self, place: Place) -> bool:
        """Whether nobody is left: then nobody can come any more, and the worker is to be ended. Twice is allowed."""
        with self._lock:
            if id(place) in self._places:
                self._places.remove(id(place))
                if not self._places:
                    self._over = True
                elif place.number is not None:
                    self.handle.say_later(m.Drop(place.number).frame())
            return self._over

    def vacate(self, place: Place) -> None:
        """`leave`, and do what follows from it. Any thread, also one that has the turn."""
        if self.leave(place):
            self.handle.condemn(monitor.closed())
            self.handle.release_when_idle()  # else who is in an operation does it on the way out
        else:
            self.handle.speak_when_idle()

    def leave_operation(self) -> None:
        """If the turn is ours: kill a worker that was left in the middle, let go of one that is condemned, and tell one
        that lives on what is to be told."""
        handle = self.handle
        if handle.turn_is_ours():
            torn = handle.busy
            if torn is not None:
                handle.condemn(monitor.abandoned())
                torn.serving.harvest()
                handle.busy = None
            if not handle.alive:
                handle.release()
            elif handle.attention:
                handle.speak()


class Place:
    """One instance's place in a worker. `number`: what the instance is called there; None before it was said."""

    __slots__ = ("number", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.number: int | None = None

    def leave(self) -> bool:
        """Give it up; whether the worker is to be ended, because this was the last. The worker hears of it when nothing
        is under way. Twice is allowed."""
        return self.worker.leave(self)


class Sharing:
    """The worker that each module's next instance goes to. `by_module`: as isolation "module" has it."""

    def __init__(self, *, by_module: bool) -> None:
        self._by_module = by_module
        self._lock = threading.Lock()
        self._current: weakref.WeakValueDictionary[str, Worker] = weakref.WeakValueDictionary()

    def find(self, sha256: str, make: Callable[[], Worker], *, alone: bool) -> Place:
        """A place in the worker of the module with these bytes, or in a new one. `alone`: in a new one, to which nobody
        else will come. Raises what `make` does."""
        if alone or not self._by_module:
            return _first(make())
        with self._lock:
            worker = self._current.get(sha256)
            # From inside a host function of an instance in it, nothing can be said to a worker.
            place = None if worker is None or worker.handle.turn_is_ours() else worker.join()
            if place is None:
                worker = make()
                place = _first(worker)
                self._current[sha256] = worker
            return place


def _first(worker: Worker) -> Place:
    place = worker.join()
    assert place is not None
    return place
