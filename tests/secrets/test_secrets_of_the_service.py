"""Nothing that the service knows is anywhere in the memory of the processes that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import COMPILER, WORKER
from scanning import UNLABELLED
from service import FORMS

import pdsandbox
from pdsandbox.cli.hostile import compile_bomb

PLANTED = {*FORMS, "environment", "argument"}


@pytest.fixture
def planted(service):
    """{who: pid} of a service with secrets in every form, with a worker whose host function held and raised one, a
    spare, and a compiler at work."""
    pids = service.ask("plant", service.tag)
    pids["spare"] = service.wait_for(WORKER, besides={pids["plain"]})
    ended = service.processes(COMPILER)  # of the modules before, still on their way out
    service.ask("compile", compile_bomb().hex())
    pids["compiler"] = service.wait_for(COMPILER, besides=ended)
    pids["fork server"] = service.fork_server()
    return pids


def test_no_secret_of_the_service_is_in_any_process(service, planted):
    """Heap, environment and arguments, in every form: found in the service itself, and nowhere else."""
    found = {who: service.found_in(pid) for who, pid in planted.items()}
    assert Path(f"/proc/{planted['compiler']}/comm").read_text().strip() == COMPILER, "it was compiling all the time"
    assert service.found_in(service.pid) - {UNLABELLED} == PLANTED, "the search works, for every form"
    assert {who: marks for who, marks in found.items() if marks} == {}


def test_no_environment_and_no_argument_of_the_service(service, planted):
    """The environment is empty. The command line has the package's place, a descriptor and a pid, nothing else."""
    root = Path(pdsandbox.__file__).parents[1]
    for who, pid in planted.items():
        assert Path(f"/proc/{pid}/environ").read_bytes() == b"", who
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert arguments[1:6] == ["-I", "-S", "-X", "utf8=1", "-c"], who
        assert (arguments[7], arguments[9]) == (str(root), str(service.pid)), who
        assert arguments[8].isdigit(), who
        assert len(arguments[10:]) == 1, who
