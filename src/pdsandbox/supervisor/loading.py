"""Makes an instance: a place in a worker, LOAD, what the guest asks for meanwhile, and what it means when that fails.

The turn of the worker is ours from before the first byte until the instance stands: a host function that a start
function calls cannot re-enter, and of two threads that load into one worker the second waits.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..calls import FuelMeter
from ..errors import CallError, Cause, InstantiationError, WasmError, WorkerCrashed
from ..imports import WasmImports
from ..limits import EngineConfig, Limits
from ..platform import os_
from ..protocol import messages as m
from . import cputime, linking, monitor, reports
from .calling import Cores
from .channel import END_GRACE_S
from .conversation import Conversation
from .instance import Instance
from .journal import Journal
from .module import Duplicate, Module
from .processes import NeverRan, Processes
from .sharing import Place, Sharing, Worker

if TYPE_CHECKING:
    from .forkclient import ForkServer
    from .granting import Granted
    from .handle import Handle

__all__ = ["Loader"]

# The death of the worker, or of the fork server, before anything could be seen of the guest.
_ATTEMPTS: Final = 3


class Loader:
    """See the module's text."""

    def __init__(
        self,
        processes: Processes,
        limits: Limits,
        engine: EngineConfig,
        cores: Cores,
        journal: Journal,
        *,
        by_module: bool,
    ) -> None:
        self._processes = processes
        self._limits = limits
        self._engine = engine
        self._cores = cores
        self._journal = journal
        self._sharing = Sharing(by_module=by_module)

    def instantiate(
        self,
        module: Module,
        offered: WasmImports,
        granted: Granted | None,
        begun: Callable[[Handle], None] = lambda _handle: None,
    ) -> Instance:
        """See `Supervisor.instantiate`. `begun` is told of the worker before anything is said to it."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._instantiate(module, offered, granted, begun)
            except NeverRan as exc:
                if attempt == _ATTEMPTS - 1:
                    raise exc.error from exc
        raise AssertionError

    def _instantiate(
        self, module: Module, offered: WasmImports, granted: Granted | None, begun: Callable[[Handle], None]
    ) -> Instance:
        asked = time.monotonic()
        server, housekeeper = self._processes.started()
        limits = self._limits
        ships = linking.ships_functions(module.compiled.imports, offered)
        unpickler = linking.unpickler() if ships else ""
        late = ships or bool(granted and granted.dirs)
        places: list[Place] = []
        sent = 0
        talk: Conversation | None = None
        try:
            artifact = module.compiled.artifact.duplicate()
            worker = self._find(module, server, artifact, places, late=late, unpickler=unpickler)
            place, handle, channel = places[0], worker.handle, worker.channel
            adding = channel.instances > 0
            begun(handle)
            # A new worker is on its way: what can be done meanwhile is done meanwhile.
            wasi = None if granted is None else granted.spec
            load, callbacks = linking.plan(module.compiled.imports, offered, limits, module.compiled.resolve, wasi)
            talk = Conversation(
                place,
                callbacks,
                limits=limits,
                fuel=FuelMeter(limits.fuel, metered=self._engine.fuel),
                housekeeper=housekeeper,
                cores=self._cores,
                interruptible=self._engine.interruptible,
                first=module.compiled.first,
            )
            if granted is not None:
                granted.streams.attach(channel, talk.instance)
                talk.serving.streams = granted.streams
            start = monitor.start_watch(time.monotonic())
            if adding:
                load = dataclasses.replace(load, instance=talk.instance, first=talk.first)
                start = talk.begin(time.monotonic(), limits.wall_s)
            frame = load.frame()
            sent = len(frame)
            if adding:
                if channel.held:
                    raise channel.broke("it said more than it was asked")
                channel.send(m.LOAD, frame, start)
            else:
                handle.watch = start
                talk.busy = True
                files = [artifact.fd] if worker.spare else [] if granted is None else [*granted.dirs]
                self._send_files(worker, files)
                channel.send(m.LOAD, frame, start)
            artifact.close()
            if not adding:
                channel.receive(start)  # READY
            # While the worker loads.
            instance = Instance(talk, module, limits, housekeeper)
            talk.await_loaded(start if adding else talk.begin(time.monotonic(), limits.wall_s))
            if not handle.wait_settled(cputime.START_TIMEOUT_S):
                raise InstantiationError("the fork server does not answer", cause=Cause.HOST)
            if not handle.alive:  # quick enough to load, but refused
                raise handle.post_mortem(time.monotonic(), END_GRACE_S)
            if self._processes.closed:
                raise handle.condemn(monitor.closed())
            spare = worker.spare and not adding
            reports.worker_ready(self._journal, handle, module.sha256, talk.instance, asked, spare=spare)
        except BaseException as exc:
            if not places:
                if isinstance(exc, OSError):
                    raise monitor.host_failure(exc) from exc
                raise
            place, worker, handle = places[0], places[0].worker, places[0].worker.handle
            if not handle.turn_is_ours():  # it was torn away while it waited
                worker.vacate(place)
                raise
            adding = (worker.channel.instances if talk is None else talk.instance) > 0
            if not adding or handle.busy is not None:
                handle.condemn(monitor.abandoned())
            never_ran = (worker.spare or adding) and sent > 0 and handle.read_nothing(sent)
            cut = talk is not None and talk.busy
            written = None if granted is None else granted.streams.last_words(cut=cut)
            if place.leave():
                handle.condemn(monitor.closed())
            worker.leave_operation()
            seen = bool(talk is not None and talk.serving.served) or (granted is not None and granted.changes)
            told = _while_instantiating(exc, seen=seen, never_ran=never_ran, adding=adding)
            if isinstance(told, WasmError):
                told.output = written
            if told is exc:
                raise
            raise told from exc
        finally:
            for place in places:
                try:  # with nothing before the C call that a signal handler's exception could come after
                    place.worker.handle.turn.release()
                except RuntimeError:
                    pass  # it was never ours
        if not adding:
            self._processes.respawn()
        return instance

    def _find(
        self,
        module: Module,
        server: ForkServer,
        artifact: Duplicate,
        places: list[Place],
        *,
        late: bool,
        unpickler: str,
    ) -> Worker:
        """A worker whose turn is ours, with a place in it, which is the only one of `places`: those are the caller's to
        give up, whatever happens. `late`: one that is not locked down yet, and not shared, because it is to take in
        functions of the user's, or directories. `unpickler`: see `control.Spawn`.

        One that is busy is waited for as long as a call may take; then it is to be another one.
        """
        limits = self._limits
        alone = late

        def make() -> Worker:
            handle, channel, spare = self._processes.take_worker(
                server, artifact.fd, artifact, late=late, unpickler=unpickler
            )
            return Worker(handle, channel, spare=spare, rss_bytes=limits.rss_bytes)

        patience_s = cputime.START_TIMEOUT_S if limits.wall_s is None else min(limits.wall_s, cputime.START_TIMEOUT_S)
        while True:
            places.append(self._sharing.find(module.sha256, make, alone=alone))
            worker = places[0].worker
            if worker.handle.turn.acquire(timeout=patience_s):
                if worker.handle.alive:
                    worker.leave_operation()
                # A new one is taken as it is: what has become of it is for whoever loads to find out. Not one that was
                # condemned before it had an instance: its descriptors are closed, and their numbers perhaps others'.
                if worker.handle.alive or (not worker.channel.instances and worker.handle.untouched):
                    return worker
                worker.handle.turn.release()
            else:
                alone = True
            worker.vacate(places.pop())

    def _send_files(self, worker: Worker, files: list[int]) -> None:
        """What goes over the socket, and stays ours: a spare's module, or directories."""
        ends = worker.handle.ends
        if files:
            sock = socket.socket(fileno=ends.socket)
            try:
                os_.send_fds(sock, b"\0", files, socket.MSG_DONTWAIT)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has died: the answer to LOAD will tell how
            finally:
                sock.detach()
        if self._engine.interruptible:
            os.set_blocking(ends.socket, False)
        else:
            os.close(ends.take_socket())


def _while_instantiating(exc: BaseException, *, seen: bool, never_ran: bool, adding: bool) -> BaseException:
    """What `instantiate` raises for `exc`. `seen`: the guest may have been seen outside; `never_ran`: the worker had
    not read LOAD; `adding`: others use the worker, too, and may have ended it."""
    if isinstance(exc, OSError):
        return monitor.host_failure(exc)
    if isinstance(exc, CallError) and exc.cause is Cause.CLOSED:
        return InstantiationError("the supervisor is closed", cause=Cause.CLOSED)
    if isinstance(exc, WorkerCrashed):
        others = exc.cause is Cause.HOST or (adding and exc.cause is Cause.CANCELLED)
        if never_ran or (others and not seen):
            return NeverRan(exc)
    return exc
