"""A `Supervisor` whose processes are fake peers, and what holds for every error that it raises.

All but the processes is real: `Supervisor`, `Conversation`, `Channel`, `Handle`, `Instance`, housekeeper, pipes.
"""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import unicodedata
import weakref
from typing import Any, Final

import fuzz_scenes as scenes
from fuzz_peer import DRY_S, Peer, SteppedChannel

import pdsandbox.supervisor.channel as channel_module
import pdsandbox.supervisor.compiling as compiling_module
import pdsandbox.supervisor.handle as handle_module
import pdsandbox.supervisor.memory as memory_module
from pdsandbox import EngineConfig, Limits, Supervisor
from pdsandbox import errors as e
from pdsandbox.platform import os_
from pdsandbox.protocol.control import Role
from pdsandbox.supervisor.ends import Ends
from pdsandbox.supervisor.handle import Handle
from pdsandbox.supervisor.housekeeper import Housekeeper
from pdsandbox.supervisor.module import Artifact, Compiled, Module

#: The contract's table, by exact class.
PREFIXES: Final = {
    e.CompileError: "WASM compile error: ",
    e.InstantiationError: "WASM instantiation error: ",
    e.CallError: "WASM call error: ",
    e.MemoryAccessError: "WASM memory access out of bounds",
    e.FuelExhausted: "WASM fuel budget exhausted",
    **dict.fromkeys((e.Trap, e.WallClockExceeded, e.RssExceeded, e.WorkerCrashed, e.GuestExit), "WASM trap: "),
}
MESSAGE_CHARS: Final = 700


def check_error(error: BaseException) -> e.WasmError:
    """Whatever it tells of: one of ours, whole, and fit for a terminal."""
    assert type(error) in PREFIXES, f"not an error of the contract: {error!r}"
    assert isinstance(error, e.WasmError)
    assert isinstance(error.cause, e.Cause)
    text = str(error)
    assert text.startswith(PREFIXES[type(error)])
    assert len(text) <= MESSAGE_CHARS
    bad = {ch for ch in text if unicodedata.category(ch)[0] == "C" or ch in "\u2028\u2029"}
    assert not bad, f"{bad!r} in a message"
    assert len(error.frames) <= 64
    chained = error.__cause__
    assert chained is None or len(str(chained)) <= 50_000
    back = pickle.loads(pickle.dumps(error))
    assert (back, back.cause, back.frames) == (error, error.cause, error.frames)
    return error


class PeerHandle(Handle):
    """A handle whose process ends as soon as it is killed."""

    def condemn(self, verdict: e.WasmError) -> e.WasmError:
        first = super().condemn(verdict)
        if not self.ended:
            self.on_exited(9, None)
        return first

    def copy_memory(self, local: int, remote: int, size: int, *, write: bool = False) -> int:
        if self.ended:
            raise ProcessLookupError(errno.ESRCH, "it has ended")
        peer: Peer = self.peer  # type: ignore[attr-defined]
        return peer.copy(local, remote, size, write=write)


class Processes:
    """In place of a supervisor's processes and its fork server: hands out peers, first come, first served."""

    ours = True
    closed = False
    fingerprint = b"fake"
    lost = gone = False

    def __init__(self) -> None:
        self.housekeeper = Housekeeper(lambda: None)
        self.housekeeper.start()
        self.peers: list[Peer] = []  # to come
        self.used: list[Peer] = []
        self.spare = False
        self._tickets = itertools.count(1)

    def own(self) -> None:
        pass

    def started(self) -> tuple[Any, Housekeeper]:
        return self, self.housekeeper

    def spawn(self, role: int, owner: Any, **_options: Any) -> Handle:
        """A handle, and the next peer behind it."""
        handle = PeerHandle(next(self._tickets), role, Ends(), owner, self.housekeeper.handles)
        peer = self.peers.pop(0)
        self.used.append(peer)
        peer.attach(handle)
        handle._settled.set()
        return handle

    def take_worker(
        self, _server: Any, _artifact: int, owner: Any, **_options: Any
    ) -> tuple[Handle, SteppedChannel, bool]:
        handle = self.spawn(Role.WORKER, owner)
        return handle, SteppedChannel(handle), self.spare

    def respawn(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        self.housekeeper.stop()


class Stage:
    """Supervisors, one for each engine configuration, and one module for all scenes."""

    def __init__(self, monkeypatch: Any, limits: Limits = scenes.LIMITS) -> None:
        # Peers that close their pipes, or leave an interrupt unanswered, do so for good: nothing to wait for.
        monkeypatch.setattr(channel_module, "SPIN_S", 0.0)
        for name in ("END_GRACE_S", "LEAST_GRACE_S", "INTERRUPT_GRACE_S"):
            monkeypatch.setattr(channel_module, name, DRY_S)
        monkeypatch.setattr(handle_module, "REPORT_S", DRY_S)
        monkeypatch.setattr(memory_module, "LEAST_GRACE_S", DRY_S)
        monkeypatch.setattr(compiling_module, "Channel", SteppedChannel)
        self.hosts: dict[bool | None, Supervisor] = {
            flag: Supervisor(limits=limits, engine=EngineConfig(interruptible=flag), cache_bytes=0)
            for flag in (False, True)
        }
        self.hosts[None] = Supervisor(limits=limits, isolation="module", cache_bytes=0)
        self.processes = Processes()
        fd = os_.memfd("pdsandbox-artifact")
        os.write(fd, b"code")
        artifact = Artifact(fd, 4, self.processes.housekeeper.later)
        self._artifacts = weakref.WeakSet([artifact])
        compiled = Compiled(artifact, scenes.IMPORT_TYPES, scenes.EXPORT_TYPES)
        for host in self.hosts.values():
            host._processes = host._loader._processes = self.processes  # type: ignore[assignment]
        self.modules = {flag: Module(host, compiled, "0" * 64) for flag, host in self.hosts.items()}
        self.imports = scenes.imports()

    def share(self, peers: list[Peer], *, more: bool = False) -> Any:
        """An instance that shares its worker. `more`: the worker is there, and `peers` are for further tries."""
        self.processes.used = [*self.processes.used] if more else []
        self.processes.peers, self.processes.spare = peers, False
        return self.hosts[None].instantiate(self.modules[None], self.imports)

    def instantiate(
        self, peers: list[Peer], *, interruptible: bool = False, spare: bool = False, wasi: Any = None
    ) -> Any:
        """An instance whose worker is the first of `peers`; the others are for further tries."""
        self.processes.peers, self.processes.used, self.processes.spare = peers, [], spare
        return self.hosts[interruptible].instantiate(self.modules[interruptible], self.imports, wasi=wasi)

    def compile(self, peer: Peer, source: bytes) -> Any:
        """A module whose compiler is `peer`."""
        self.processes.peers, self.processes.used = [peer], []
        return self.hosts[False].compile(source)

    def end_round(self) -> None:
        """Close what peers hold. Whatever else a round has left shows in the count of descriptors."""
        for peer in self.processes.used:
            peer.detach()

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        for artifact in self._artifacts:
            artifact.close()
