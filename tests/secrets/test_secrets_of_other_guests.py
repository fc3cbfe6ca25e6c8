"""What one guest was told is in its own worker, and in no process that another guest could meet."""

from __future__ import annotations

from running import COMPILER, WORKER

from pdsandbox.cli.hostile import compile_bomb

TOLD = {"shipped", "answered", "written", "data"}


def test_what_one_guest_is_told_is_in_its_worker_alone(service):
    """Functions shipped, memory written from outside, by a host function, by the module itself: found in that worker;
    not in another worker, the fork server, the spares started before and after, nor a compiler started after."""
    before = service.ask("make", "earlier")
    told = service.ask("share", service.tag)["told"]
    later = service.ask("make", "later")["later"]
    spare = service.wait_for(WORKER, besides={before["earlier"], told, later})
    ended = service.processes(COMPILER)  # of the modules before, still on their way out
    service.ask("compile", compile_bomb().hex())
    compiler = service.wait_for(COMPILER, besides=ended)
    assert service.found_in(told) == TOLD, "the search works"
    others = {
        "earlier": before["earlier"],
        "later": later,
        "spare": spare,
        "compiler": compiler,
        "fork server": service.fork_server(),
    }
    assert {who: found for who, pid in others.items() if (found := service.found_in(pid))} == {}


def test_what_an_ended_guest_was_told_comes_back_to_nobody(service):
    """Processes started after it has ended have nothing of it, whichever pages they get."""
    service.ask("share", service.tag)
    service.ask("end", "told")
    for name in ("one", "two", "three"):
        pid = service.ask("make", name)[name]
        assert service.found_in(pid) == set()
    assert service.found_in(service.fork_server()) == set()
