"""One guest in a worker, with all that is its own. A worker has one, or several of the same module, which take turns.

Knows nothing of pipes, nor of who else is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..runtime.guest import Guest
from ..runtime.hostcalls import HostCalls

if TYPE_CHECKING:
    from ..runtime.wasi.system import System

__all__ = ["Tenant"]


class Tenant:
    """See the module's text.

    number    the instance's, as the supervisor calls it
    exports   numbers of its exports
    system    its WASI, None where none is granted
    on_taken  called when the supervisor has taken what was captured of its streams
    """

    __slots__ = ("exports", "guest", "hosts", "number", "on_taken", "system")

    def __init__(self, guest: Guest, hosts: HostCalls) -> None:
        self.guest = guest
        self.hosts = hosts
        self.number = 0
        self.exports: list[int] = []
        self.system: System | None = None
        self.on_taken: Callable[[], None] | None = None

    @property
    def reset(self) -> Callable[[], None] | None:
        """What a call begins with; nothing for a guest that calls nobody. True of one that stands."""
        return self.hosts.reset if self.guest.calls_out else None

    def close(self) -> None:
        """It will not run any more. Twice is allowed."""
        self.guest.close()
        if self.system is not None:
            self.system.close()
