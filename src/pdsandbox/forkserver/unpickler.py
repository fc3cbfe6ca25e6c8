"""The one package that only some workers need, cloudpickle: imported once, before they are forked.

That import took each of them 12 ms and 2.9 MiB. The fork server makes it when it is asked for the first of them, so
that who ships no function pays nothing. It calls nothing of it: this module must know nothing of what is unpickled.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "cloudpickle"
# What it imports of which the hooks do nothing else.
_MEND_LOCKS: Final = ("logging", "threading")


class _Finder:
    """Finds the package in one place, and nothing else there."""

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self._root]) if name == _PACKAGE else None


class Unpickler:
    """See the module's text."""

    def __init__(self) -> None:
        self._tried: set[str] = set()
        self._after_fork: list[Callable[[], Any]] = []

    def prepare(self, root: str) -> None:
        """Import the package that lies in the directory (or archive) `root`, unless that was tried before.

        Should it fail, then so it may: the worker tries it in its own way, and has whom to tell.
        """
        if root in self._tried:
            return
        self._tried.add(root)
        path, register, finder = sys.path[:], os.register_at_fork, _Finder(root)
        ours = os.path.dirname(sys.modules[__name__.partition(".")[0]].__path__[0])
        # What it imports is the standard library's, and may be nobody else's: not what is installed beside it, or us.
        sys.path[:] = [entry for entry in path if entry != ours]
        sys.meta_path.append(finder)
        os.register_at_fork = self._register
        try:
            __import__(_PACKAGE)
        except Exception:
            pass
        finally:
            os.register_at_fork = register
            sys.meta_path.remove(finder)
            sys.path[:] = path
        gc.freeze()  # as after warming up, or the first collection in each fork would write to all of it

    def _register(
        self,
        *,
        before: Callable[[], Any] | None = None,
        after_in_parent: Callable[[], Any] | None = None,
        after_in_child: Callable[[], Any] | None = None,
    ) -> None:
        """In place of `os.register_at_fork`, whose hooks all forks would run; theirs writes to 70 pages.

        The fork server has one thread, which holds no lock of theirs when it forks: what guards or mends locks has
        nothing to do. Anything else a module may have for a child (such as another seed) is kept for `after_fork`.
        """
        if after_in_child is not None and after_in_child.__module__ not in _MEND_LOCKS:
            self._after_fork.append(after_in_child)

    def after_fork(self) -> None:
        """In a child that will use the package, first of all."""
        for hook in self._after_fork:
            hook()
