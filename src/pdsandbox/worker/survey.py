"""The survey: a child that locks itself down as every later one will, and looks after each step whether it holds.

One of each kind: a worker, a compiler, and a worker that was granted a directory, its own in /proc. Runs our own code
only. Each reports over a pipe, one line a layer.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from ..hardening import Layer, State
from ..platform import os_
from ..platform.lockdown import privileges
from ..protocol.control import Role, Seen
from .lockdown import Lockdown
from .proofs import DoesNotHold, Proofs
from .reasons import ended_by, parts, reason

_END: Final = "end"

Rows = dict[Layer, tuple[State, str]]


def survey(lockdown: Lockdown) -> tuple[Seen, ...]:
    """Send a child of each kind through `lockdown`, and settle its plan. In the fork server, single-threaded."""
    return _survey(lockdown, brief=False)


def survey_briefly(lockdown: Lockdown) -> tuple[Seen, ...]:
    """The same, without what is looked at for the report alone."""
    return _survey(lockdown, brief=True)


def _survey(lockdown: Lockdown, *, brief: bool) -> tuple[Seen, ...]:
    seen = {}
    for role in (Role.WORKER, Role.COMPILER):
        while (rows := _look(lockdown, role)) is None:
            pass  # one layer fewer is in the plan
        seen[role] = rows
    if not brief:
        _look_at_granted(lockdown, seen[Role.WORKER])
    # Only now it is known whether somebody can raise the limit on CPU time, and so whether later children have it.
    for role, rows in seen.items():
        state, detail = rows[Layer.RLIMITS]
        if state is State.ACTIVE:
            cpu = (
                "CPU time"
                if lockdown.cpu_ceiling(role) is not None
                else "no limit on CPU time but the supervisor's own"
            )
            rows[Layer.RLIMITS] = state, f"{detail}; {cpu}"
    return tuple(Seen(role, layer, *rows[layer]) for role, rows in seen.items() for layer in Layer)


def _look(lockdown: Lockdown, role: int) -> Rows | None:
    """What a child says. What could not be applied has left the plan; None when trying that ended the child."""
    rows, failed, deadly = _send_one(lockdown, role)
    for layer, why in failed.items():
        lockdown.drop(layer, State.MISSING, why, role)
    if deadly:
        return None
    for layer in Layer:
        without = lockdown.without(role, layer)
        if without is not None:
            rows.setdefault(layer, without)
    return rows


def _look_at_granted(lockdown: Lockdown, rows: Rows) -> None:
    """What a worker with directories says, where it is worse: it takes the same steps with other values.

    What fails there leaves nobody's plan: other workers have it, and one with directories that cannot is no worker.
    """
    found, failed, _ = _send_one(lockdown, Role.WORKER, granted=True)
    worse = {layer: detail for layer, (state, detail) in found.items() if state is State.MISSING}
    for layer, why in {**worse, **failed}.items():
        if rows[layer][0] in (State.ACTIVE, State.NOT_NEEDED):
            rows[layer] = State.MISSING, f"with directories: {why}"


def _send_one(lockdown: Lockdown, role: int, *, granted: bool = False) -> tuple[Rows, dict[Layer, str], bool]:
    """A child's words; what could not be applied, and why; whether trying that ended the child."""
    lines, status = _fork_one(lockdown, role, granted=granted)
    rows: Rows = {}
    failed: dict[Layer, str] = {}
    trying = None
    for line in lines:
        name, *said = line.split("\t", 3)
        if not said:
            trying = name
            continue
        layer, (state, applied, detail) = Layer[name], said
        if layer not in rows or rows[layer][0] is State.ACTIVE:  # what has failed once has failed
            rows[layer] = State[state], detail
        if not int(applied):
            failed.setdefault(layer, detail)
    if trying == _END:
        return rows, failed, False
    if trying is None or not os.WIFSIGNALED(status):
        raise SystemExit(f"the look at the lock-down ended early (wait status {status})")
    for part in parts(Layer[trying]):
        failed.setdefault(part, ended_by(status))
    return rows, failed, True


def _fork_one(lockdown: Lockdown, role: int, *, granted: bool) -> tuple[list[str], int]:
    """A child's lines, and its wait status."""
    # Somebody outside the child's domain, for it to try to reach.
    outside: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    assert outside is not None
    try:
        outside.bind("")  # the kernel picks an abstract name
        outside.listen()
    except OSError:  # another sandbox's word
        outside.close()
        outside = None
    r, w = os_.pipe()
    pid = os.fork()
    if pid == 0:
        _Child(lockdown, role, w, outside.getsockname() if outside else None, granted=granted).run()
    os.close(w)
    with open(r, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    if outside is not None:
        outside.close()
    # Whether the supervisor, which has our rights, will be able to raise it.
    try:
        os_.limit_cpu(pid, None)
    except OSError:
        lockdown.limits_cpu = False
    _, status = os.waitpid(pid, 0)
    return lines, status


class _Child:
    """In the fork."""

    def __init__(self, lockdown: Lockdown, role: int, report: int, outside: bytes | None, *, granted: bool) -> None:
        self._lockdown = lockdown
        self._role = role
        self._report = report
        self._outside = outside
        self._granted = granted
        self._proofs: Proofs | None = None

    def run(self) -> NoReturn:
        status = 1
        try:
            # As in every child: nothing of the fork server's stays open.
            mine = {self._report, *self._lockdown.descriptors}
            os_.close_all_but(mine)
            directory = None
            if self._granted:
                directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._lockdown.grant([(directory, False)])
                mine.add(directory)
            self._proofs = Proofs(self._lockdown, self._role, mine, self._outside, directory)
            self._go_through()
            os.write(self._report, f"{_END}\n".encode())
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _go_through(self) -> None:
        # What is inherited, while /proc can still be read.
        for inherited in (Layer.CLEAN_START, Layer.OOM_SCORE, Layer.NAMESPACES, Layer.NO_NEW_PRIVS):
            self._prove(inherited)
        limited = True
        for layer, step in self._lockdown.steps(self._role):
            if layer is None:
                try:
                    step()
                except OSError as exc:
                    if not self._granted:
                        raise
                    # As whoever it is now it may not use its directory: such workers leave here.
                    self._say(Layer.UID, State.MISSING, str(exc), applied=False)
                    return
                if limited:  # only now all of them are set
                    self._prove(Layer.RLIMITS)
            elif layer is Layer.RLIMITS:
                limited = self._apply(layer, step)
            elif self._apply(layer, step) and not (layer is Layer.SECCOMP and self._role == Role.WORKER):
                for part in parts(layer):
                    self._prove(part)
                if layer is Layer.UID:
                    self._look_for_a_gift()
        if self._role == Role.WORKER:
            if self._apply(Layer.MDWE, privileges.refuse_executable_gain):
                self._prove(Layer.MDWE)
            if self._apply(Layer.SECCOMP, self._lockdown.lock_filter):
                self._prove(Layer.SECCOMP)

    def _apply(self, layer: Layer, step: Callable[[], None]) -> bool:
        """Whether it was in the plan, and could be applied."""
        if not self._lockdown.applies(self._role, layer):
            return False
        os.write(self._report, f"{layer.name}\n".encode())
        try:
            step()
        except OSError as exc:
            for part in parts(layer):
                self._say(part, State.MISSING, reason(part, exc), applied=False)
            return False
        return True

    def _look_for_a_gift(self) -> None:
        if not self._lockdown.applies(self._role, Layer.UNDUMPABLE) and not privileges.is_dumpable():
            self._say(Layer.UNDUMPABLE, State.NOT_NEEDED, "the change of user has brought it along")

    def _prove(self, layer: Layer) -> None:
        assert self._proofs is not None
        if self._lockdown.applies(self._role, layer):
            try:
                self._say(layer, State.ACTIVE, self._proofs.prove(layer))
            except (OSError, DoesNotHold) as exc:
                self._say(layer, State.MISSING, f"applied, but does not hold: {exc}")

    def _say(self, layer: Layer, state: State, detail: str, *, applied: bool = True) -> None:
        os.write(self._report, f"{layer.name}\t{state.name}\t{applied:d}\t{detail}\n".encode())
