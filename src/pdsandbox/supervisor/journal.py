"""Events of one host: counted where they happen, and told to the hook and to `logging` by a thread of their own.

Publishing never waits for the hook or a logging handler: the queue is bounded, and what finds it full is dropped and
counted. The thread is there while there is something to tell, and a moment longer; it holds nothing of the host, so
that a dropped host goes although its hook refers to it. Knows nothing of processes: who publishes knows what.

The classes of events take 7 ms to import, which most programs need not pay: an event is made when somebody listens.
"""

from __future__ import annotations

import collections
import queue
import threading
from _thread import allocate_lock
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from .. import generation
from . import logged

if TYPE_CHECKING:
    from types import ModuleType

    from ..events import Event

#: An event takes about 0.3 KB. As many workers as a machine holds may end at once, with three events each.
MOST_QUEUED: Final = 4096
#: How long the thread stays when there is nothing to tell: less would start one for each of a few calls.
IDLE_S: Final = 1.0
#: How long `close` waits for the hook; events that it has not been told by then it is told later, while there is time.
CLOSE_S: Final = 1.0


class Journal:
    """See the module's text. `hook`: who is told, or None."""

    def __init__(self, hook: Callable[[Event], Any] | None = None) -> None:
        self._hook = hook
        self._generation: int | None = None
        self._queue: collections.deque[Event] = collections.deque()
        self._pending: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the thread
        # Not a plain lock: a signal handler may publish while its thread is publishing.
        self._lock = threading.RLock()
        self._telling = allocate_lock()  # held by, or for, the thread
        self._teller: int | None = None
        self._missed = 0  # since the last one that was queued
        self._closed = False
        #: How much there was of each thing that `HostStats` counts.
        self.counts: collections.Counter[Any] = collections.Counter()
        self.dropped = 0
        self.hook_failures = 0

    def publish(self, name: str, make: Callable[[Any], Event], count: Hashable) -> None:
        """Any thread: add one to `counts[count]`, and have the event told that `make` makes of the module `events`.

        `name`: of its class. Events are told in the order in which they are published.
        """
        with self._lock:
            self.counts[count] += 1
            if self._closed or (self._hook is None and not logged.wanted(name)):
                return
            if self._generation is None:
                self._generation = generation.now
            if self._generation != generation.now:
                return  # a fork of the process whose host this is
            if len(self._queue) >= MOST_QUEUED:
                self._missed += 1
                self.dropped += 1
                return
            self._queue_missed()
            self._queue.append(make(_events()))
            self._pending.put(None)
            if self._telling.acquire(blocking=False):
                self._start()

    def _queue_missed(self) -> None:
        """Where events were dropped, the hook is told how many."""
        if self._missed:
            self._queue.append(_events().EventsDropped(count=self._missed))
            self._pending.put(None)
            self._missed = 0

    def _start(self) -> None:
        thread = threading.Thread(target=self._tell_all, name="pdsandbox-events", daemon=True)
        try:
            thread.start()
        except BaseException as exc:  # no more threads: whoever publishes next tries again; or a signal handler's
            if thread.ident is None:
                self._telling.release()
            if not isinstance(exc, RuntimeError):
                raise

    def _tell_all(self) -> None:
        """The thread."""
        self._teller = threading.get_ident()
        while True:
            try:
                self._pending.get(timeout=0.0 if self._closed else IDLE_S)
            except queue.Empty:
                self._teller = None
                self._telling.release()
                # Who published meanwhile has found the lock taken.
                if self._pending.empty() or not self._telling.acquire(blocking=False):
                    return
                self._teller = threading.get_ident()
                continue
            if self._queue:
                self._tell(self._queue.popleft())

    def _tell(self, event: Event) -> None:
        try:
            logged.write(event)
            if self._hook is not None:
                self._hook(event)
        # Also a SystemExit: it is the hook's, and nobody else's thread.
        except BaseException:
            self.hook_failures += 1
            logged.hook_failed(event, first=self.hook_failures == 1)

    def close(self) -> None:
        """No more events; wait, a little, until the hook was told of all of them. Twice is allowed, and from the hook
        itself, which then is told of the rest when it returns."""
        with self._lock:
            self._queue_missed()
            self._closed = True
            self._pending.put(None)
        if self._teller != threading.get_ident() and self._telling.acquire(timeout=CLOSE_S):
            self._telling.release()


def _events() -> ModuleType:
    from .. import events

    return events
