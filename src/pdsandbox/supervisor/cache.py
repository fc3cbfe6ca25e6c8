"""The in-memory compile cache: least recently used out first, by bytes; equal requests at one time compile once.

The first of several equal requests leads; the others wait for it. A leader that is cancelled (KeyboardInterrupt in its
thread, say) hands over: the next waiter leads. An error of the compilation is everybody's, as a copy. Locks are held
only for bookkeeping, never while compiling.
"""

from __future__ import annotations

import collections
import copy
import threading
from collections.abc import Callable
from typing import Final

from ..errors import WasmError
from .latch import Latch
from .module import Compiled


class _Flight:
    """One compilation under way."""

    __slots__ = ("done", "error", "leading", "result")

    def __init__(self) -> None:
        self.done = Latch()
        self.leading = True
        self.result: Compiled | None = None
        self.error: WasmError | None = None


# Each entry holds a descriptor of the user's process, which may have no more than 1,024.
MAX_ENTRIES: Final = 100


class CompileCache:
    """See the module's text. `cache_bytes` counts artifacts; 0 keeps nothing. At most MAX_ENTRIES are kept."""

    def __init__(self, cache_bytes: int) -> None:
        self._most = cache_bytes
        self._bytes = 0
        self._entries: collections.OrderedDict[bytes, Compiled] = collections.OrderedDict()
        self._flights: dict[bytes, _Flight] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes, compile_: Callable[[], Compiled]) -> Compiled:
        """The entry for `key`, compiled by `compile_` if there is none. Raises what that raises."""
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                    return entry
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
            if leads:
                return self._lead(key, flight, compile_)
            while flight.leading and not flight.done.wait(1.0):
                pass
            if flight.result is not None:
                return flight.result
            if flight.error is not None:
                raise copy.copy(flight.error)
            # The leader left without an outcome: whoever comes first leads.
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def _lead(self, key: bytes, flight: _Flight, compile_: Callable[[], Compiled]) -> Compiled:
        try:
            flight.result = compile_()
            return flight.result
        except WasmError as exc:
            flight.error = copy.copy(exc)
            raise
        finally:
            # First of all, and before anything that a signal handler could interrupt: nobody waits for us in vain.
            flight.leading = False
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if flight.result is not None:
                    self._insert(key, flight.result)
            flight.done.set()

    def _insert(self, key: bytes, entry: Compiled) -> None:
        if entry.artifact.size > self._most:
            return
        self._entries[key] = entry
        self._bytes += entry.artifact.size
        while self._bytes > self._most or len(self._entries) > MAX_ENTRIES:
            _, old = self._entries.popitem(last=False)
            # Not closed: modules may hold it. Its descriptor goes with the last of them.
            self._bytes -= old.artifact.size

    @property
    def bytes_held(self) -> int:
        """Bytes of artifacts that the cache keeps."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
