"""A host that shares workers, for the conformance tests: each instance that it makes is the second one in its worker.

The first is of the same module, with functions that do nothing. It leaves as soon as the second stands, so that ending
the one under test ends the worker, as on the other hosts.
"""

from __future__ import annotations

from typing import Any

from pdsandbox import HostFunction, Supervisor, WasmError, WasmImports
from pdsandbox.externs import FuncType


class Neighbourly(Supervisor):
    """See the module's text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(isolation="module", **options)

    def instantiate(self, module: Any, *arguments: Any, **options: Any) -> Any:
        first = self._first(module)
        try:
            instance = super().instantiate(module, *arguments, **options)
            if first is not None:
                assert (instance._talk.instance > 0) == (instance.pid == first.pid)
            return instance
        finally:
            if first is not None:
                first.close()

    def _first(self, module: Any) -> Any:
        """The neighbour; None where there can be none, which the instance under test will tell in its own words."""
        if getattr(module, "host", None) is not self:
            return None
        try:
            return super().instantiate(module, WasmImports(functions=_functions(module)))
        except (WasmError, ValueError):
            return None


def _functions(module: Any) -> dict[tuple[str, str], HostFunction]:
    """Something for each function that the module imports; ValueError for one that no host can offer."""
    return {
        (item.module, item.name): HostFunction(_nothing(len(item.type.results)), item.type.params, item.type.results)
        for item in module.imports()
        if isinstance(item.type, FuncType)
    }


def _nothing(results: int) -> Any:
    returned = (None, 0, (0,) * results)[min(results, 2)]
    return lambda _caller, *_arguments: returned
