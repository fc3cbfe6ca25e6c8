"""A program: attempts in children that lock themselves down as workers and compilers do, or do not.

Argument, as JSON: {"scene": …, "stages": […], "sweep": [numbers] or absent}. Prints JSON: {stage: {name: outcome}}. The
stage "free" comes alone, and is that of hardening="off". With `sweep`, system calls by number in place of the table.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from escape_scene import GRANTED_STAGES, STAGES, Scene, call, ended
from escape_table import table_at

from pdsandbox.hardening import OFF, Hardening, Layer
from pdsandbox.platform import os_
from pdsandbox.protocol.control import Role
from pdsandbox.worker.lockdown import Lockdown
from pdsandbox.worker.survey import survey

# Any, below what the attempts reach for.
_DATA_MORE = 128 << 20
_SPACE_MORE = 8 << 30
_DESCRIPTORS = 64
_CPU_S = 60

Act = tuple[str, Callable[[], str]]


def lockdown(hardening: Hardening) -> Lockdown:
    """What the fork server makes of this process. There is no way back."""
    os_.forbid_core_dumps()
    made = Lockdown(frozenset(filter(hardening.wants, Layer)), dict.fromkeys(range(Role.COUNT), _CPU_S))
    made.prepare()
    survey(made)
    return made


def enter(made: Lockdown, stage: str, dirs: dict[str, int]) -> None:
    """In a fork: go as far as `stage`."""
    if stage == "free":
        return
    if stage in GRANTED_STAGES:
        made.grant([(fd, name == "rw") for name, fd in dirs.items()])
    elif stage == "reading":
        made.grant([(dirs["ro"], False)])
    os_.set_ceilings(os_.data_ceiling(_DATA_MORE), os_.space_ceiling(_SPACE_MORE), _DESCRIPTORS)
    made.enter(Role.COMPILER if stage == "compiling" else Role.WORKER)
    if stage in ("locked", "granted", "reading"):
        made.lock()


def outcomes(begin: Callable[[], None], keep: set[int], acts: list[Act]) -> dict[str, str]:
    """Do all `acts` in forks that `begin` first: one that ends its process is followed by another fork."""
    found: dict[str, str] = {}
    while acts:
        r, w = os_.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os_.close_all_but({w, *keep})
                begin()
                os.write(w, b"begun\n")
                for _, act in acts:
                    os.write(w, act().encode() + b"\n")
            finally:
                os._exit(0)
        os.close(w)
        with open(r, "rb") as pipe:
            said = pipe.read().decode().split()
        _, status = os.waitpid(pid, 0)
        if not said:
            raise SystemExit(f"a child was not locked down: status {status}")
        done = len(said) - 1
        found |= {name: outcome for (name, _), outcome in zip(acts, said[1:], strict=False)}
        if done < len(acts):
            found[acts[done][0]] = ended(status)
        acts = acts[done + 1 :]
    return found


def by_number(number: int, argument: int) -> str:
    """The outcome of one system call with six equal arguments."""
    try:
        call(number, *(argument,) * 6)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "ok"


def acts_of(scene: Scene, stage: str, sweep: list[int] | None) -> list[Act]:
    if sweep is None:
        return [(name, lambda attempt=attempt: attempt.try_out(scene)) for name, attempt in table_at(stage).items()]
    return [
        (f"{number} {argument}", lambda number=number, argument=argument: by_number(number, argument))
        for number in sweep
        for argument in (0, -1)
    ]


def serve(order: dict[str, Any], supervisor: int, sibling: int) -> None:
    """As a fork server would."""
    stages = order["stages"]
    hardened = stages != ["free"]
    scene = Scene(hardened=hardened, supervisor=supervisor, fork_server=os.getpid(), sibling=sibling, **order["scene"])
    made = lockdown(Hardening() if hardened else OFF)
    dirs = {name: os.open(f"{scene.directory}/{name}", os.O_RDONLY | os.O_DIRECTORY) for name in ("ro", "rw")}
    _, stderr = os.pipe()  # a pipe, as in a worker; it is only ever asked about
    found = {}
    for stage in stages:

        def begin(stage: str = stage) -> None:
            os.dup2(stderr, 2)
            os.close(stderr)
            enter(made, stage, dirs)

        acts = acts_of(scene, stage, order.get("sweep"))
        with_dirs = () if stage in STAGES else dirs.values()
        found[stage] = outcomes(begin, {stderr, *made.descriptors, *with_dirs}, acts)
    print(json.dumps(found), flush=True)


def main(order: dict[str, Any]) -> int:
    """This process stands for the supervisor, one child for a worker, another is the fork server."""
    r, w = os.pipe()
    sibling = os.fork()
    if sibling == 0:
        os.close(w)
        os.read(r, 1)  # end of file: everybody else is gone
        os._exit(0)
    os.close(r)
    supervisor = os.getpid()
    server = os.fork()
    if server == 0:
        code = 1
        try:
            serve(order, supervisor, sibling)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    _, status = os.waitpid(server, 0)
    os.close(w)
    os.waitpid(sibling, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
