"""A guest in this process as a program: a reactor's constructor, a command's one run, and what it has written.

One thing at a time is asked of it: it knows nothing of threads, of turns, or of how an instance comes to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..calls import FuelMeter, check_command
from ..errors import GuestExit, WasmError
from ..wasi import Output, RunResult, Wasi
from . import verdict
from .bound import Bound, headroom
from .guest import Guest
from .hostcalls import HostCalls
from .reactor import constructor

if TYPE_CHECKING:
    from .wasi.system import System

__all__ = ["Program"]


class Program:
    """See the module's text. `system` is its WASI, None where none is granted."""

    __slots__ = ("_guest", "_has_run", "_hosts", "_meter", "system")

    def __init__(self, guest: Guest, hosts: HostCalls, meter: FuelMeter, wasi: Wasi | None) -> None:
        """InstantiationError, USAGE, for a directory that cannot be granted."""
        self._guest, self._hosts, self._meter = guest, hosts, meter
        self._has_run = False
        self.system: System | None = None
        if wasi is not None:
            from .wasi.local import local_system  # most guests need none of it

            self.system = local_system(guest, wasi)

    def initialize(self, fuel: int | None) -> None:
        """Run the constructor if the guest is a reactor, with what instantiating has left of `fuel`; it raises what a
        start function does."""
        bound = constructor(self._guest)
        if bound is None:
            return
        left = self._meter.begin()
        if fuel is not None:
            left = max(0, left - (self._meter.consumed or 0))
        self._hosts.reset()
        try:
            bound.call(left)
        except WasmError as exc:
            raise verdict.while_instantiating(exc) from exc
        finally:
            self._meter.settle(self._guest.last_fuel)

    def run(self, start: Bound, fuel: int | None, ended: Callable[[], WasmError | None]) -> RunResult:
        """Run the command, whose `_start` this is; CallError when it is none, or has run already.

        `ended` tells why the instance has come to its end, if it has: then there is no result. Whatever WasmError
        ends the program carries what it had written.
        """
        check_command(start.type, has_run=self._has_run)
        budget = self._meter.begin(fuel)
        if self._guest.calls_out:
            headroom()
        self._has_run = True
        self._hosts.reset()
        try:
            code = self._exit_code(start, budget, ended)
        except WasmError as exc:
            exc.output = self.written()
            raise
        used = self._guest.last_fuel if self._meter.metered else None
        written = self.written()
        return RunResult(code, written.stdout, written.stderr, written.truncated, used)

    def _exit_code(self, start: Bound, budget: int, ended: Callable[[], WasmError | None]) -> int:
        code = 0
        try:
            start.call(budget)
        except GuestExit as exc:
            code = exc.exit_code or 0
        except WasmError:
            if error := ended():
                raise error from None
            raise
        finally:
            self._meter.settle(self._guest.last_fuel)
        if error := ended():  # meanwhile: as on the other hosts, no result
            raise error
        return code

    def written(self) -> Output:
        """What was written to captured streams since the last time."""
        return Output() if self.system is None else Output(*self.system.standard.taken())

    def close(self) -> None:
        """When the guest has gone."""
        if self.system is not None:
            self.system.close()
