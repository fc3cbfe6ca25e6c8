"""This machine refuses descriptors or processes: cause HOST, nothing leaked, and later all works again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from programs import PATIENCE_S, Program, environment, fork_server, script

COMMON = """
    import os, resource, sys, threading
    from pdsandbox import Cause, CompileError, InstantiationError, Limits, Supervisor, WasmError, WasmImports
    from userland import ADD, LOOP, add, await_word, failure, say

    SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)

    def fds():
        # Not the listing's own, which is closed by then.
        return sorted(targets())

    def targets():
        found = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                pass
        return found

    def room(more):
        \"\"\"Leave room for so many more descriptors: every number above the lowest free ones is out of bounds.\"\"\"
        probes = [os.open("/dev/null", os.O_RDONLY) for _ in range(more)] or [os.dup(0)]
        top = max(probes) + 1 if more else min(probes)
        for probe in probes:
            os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, HARD))

    def unlimited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))

    def leaked(before):
        # What is open beyond `before`, once the housekeeper has had its time.
        import time
        deadline = time.monotonic() + 20
        while set(fds()) - set(before) and time.monotonic() < deadline:
            time.sleep(0.002)
        return [os.readlink(f"/proc/self/fd/{number}") for number in fds() if number not in before]

    # Loaded before there is no room for the files: imports are not what this is about.
    with Supervisor() as warm:
        add(warm)
    del warm
"""


def test_too_few_descriptors_to_begin(program):
    """From no room at all upward, one by one, until it works: each failure is HOST and leaks nothing."""
    with program(
        COMMON
        + """
    before = fds()
    for more in range(200):
        host = Supervisor(spares=0)
        room(more)
        told = failure(lambda: add(host))
        unlimited()
        if more % 8 == 0 or not told["error"]:
            assert add(host) == 3, "the same supervisor works once there is room"
        host.close()
        say(leaked=leaked(before), **told)
        if not told["error"]:
            break
"""
    ) as script:
        refusals = _until_it_works(script)
        script.ended_well()
    assert len(refusals) >= 5
    assert {"CompileError"} <= {told["error"] for told in refusals}


def test_too_few_descriptors_for_one_more(program):
    """With a supervisor at work: one more instance, or compilation, is refused; the instance beside it is untouched."""
    with program(
        COMMON
        + """
    host = Supervisor(spares=0, cache_bytes=0)
    neighbour, module = host.instantiate(host.compile(ADD)), host.compile(LOOP)
    uses = {
        "instantiate": lambda: host.instantiate(module).close(),
        "compile": lambda: host.compile("(module)") and None,
    }
    for name, use in uses.items():
        before = fds()
        for more in range(60):
            room(more)
            told = failure(use)
            unlimited()
            say(leaked=leaked(before), neighbour=neighbour.func("add")(1, 2), **told)
            if not told["error"]:
                break
    host.close()
"""
    ) as script:
        for error in ("InstantiationError", "CompileError"):
            refusals = _until_it_works(script, neighbour=3)
            assert len(refusals) >= 5
            assert {told["error"] for told in refusals} == {error}
        script.ended_well()


def test_descriptors_run_out_while_a_worker_is_on_its_way(program):
    """Its pidfd finds no room when it comes: this one cannot be held, and is refused; its neighbour is untouched."""
    with program(
        COMMON
        + """
    import pathlib, signal
    host = Supervisor(spares=0)
    neighbour, module = host.instantiate(host.compile(ADD)), host.compile(LOOP)

    def children(pid):
        return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    (fork_server,) = map(int, children(os.getpid()))
    while len(children(fork_server)) > 1:  # until the compilers are reaped, and all that was held for them is closed
        pass
    before, known = fds(), targets()
    os.kill(fork_server, signal.SIGSTOP)
    while "(stopped)" not in pathlib.Path(f"/proc/{fork_server}/status").read_text():
        pass
    told = []
    thread = threading.Thread(target=lambda: told.append(failure(lambda: host.instantiate(module))))
    thread.start()
    # What an instance has while its worker is on its way: both ends of one pipe, and one of each of two others.
    while True:
        new = [target for number, target in targets().items() if known.get(number) != target]
        if len(new) == 4 and len(set(new)) == 3 and all(target.startswith("pipe:") for target in new):
            break
    room(0)
    os.kill(fork_server, signal.SIGCONT)
    thread.join()
    unlimited()
    say(leaked=leaked(before), neighbour=neighbour.func("add")(1, 2), **told[0])
    say(answer=add(host))
    host.close()
"""
    ) as script:
        told = script.report()
        assert (told["error"], told["cause"]) == ("InstantiationError", "HOST"), told
        assert told["leaked"] == []
        assert told["neighbour"] == 3
        assert script.report() == {"answer": 3}
        script.ended_well()


def test_a_fork_server_born_poor_is_not_poor_for_ever(program):
    """Started under a low soft limit, which it inherits: once that is raised, there may be dozens of instances."""
    with program(
        COMMON
        + """
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, HARD))
    host = Supervisor(spares=0)
    module = host.compile(ADD)
    unlimited()
    instances = [host.instantiate(module) for _ in range(80)]
    say(answers=sum(instance.func("add")(1, 2) for instance in instances))
    host.close()
"""
    ) as script:
        assert script.report() == {"answers": 240}
        script.ended_well()


def _until_it_works(script, **facts):
    """The refusals until one attempt is none."""
    refusals = []
    while True:
        told = script.report()
        assert told["leaked"] == [], (len(refusals), told)
        assert {name: told[name] for name in facts} == facts, (len(refusals), told)
        if not told["error"]:
            return refusals
        assert told["error"] in ("CompileError", "InstantiationError"), (len(refusals), told)
        assert told["cause"] == "HOST", (len(refusals), told)
        refusals.append(told)


PROCESSES = """
    host = Supervisor(spares=0, cache_bytes=0)
    neighbour, module = host.instantiate(host.compile(ADD)), host.compile(LOOP)
    before = fds()
    say(ready=True)
    fork_server = int(await_word())
    limits = resource.prlimit(fork_server, resource.RLIMIT_NPROC)
    resource.prlimit(fork_server, resource.RLIMIT_NPROC, (1, limits[1]))
    for use in (lambda: host.instantiate(module), lambda: host.compile("(module)")):
        told = failure(use)
        say(leaked=leaked(before), neighbour=neighbour.func("add")(1, 2), **told)
    resource.prlimit(fork_server, resource.RLIMIT_NPROC, limits)
    say(answer=add(host))
    host.close()

    # From nothing upward: the process, its thread, the workers.
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    before = fds()
    for most in range(1, 40) if sys.argv[1] == "alone" else ():
        host = Supervisor(spares=0)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, limits[1]))
        told = failure(lambda: add(host))
        resource.setrlimit(resource.RLIMIT_NPROC, limits)
        host.close()
        say(leaked=leaked(before), **told)
        if not told["error"]:
            break
"""


def test_no_more_processes(tmp_path):
    """A fork or a thread is refused: HOST, the instance beside it is untouched, and all works once it is allowed."""
    command = [*script(tmp_path, COMMON + PROCESSES, "alone" if os.getuid() == 0 else "among others")]
    if os.getuid() == 0:
        command = _as_nobody(command)
    with Program(command, cwd="/") as limited:
        limited.report()
        limited.word(str(fork_server(limited.pid)))
        for error in ("InstantiationError", "CompileError"):
            told = limited.report()
            assert (told["error"], told["cause"]) == (error, "HOST"), told
            assert told["leaked"] == []
            assert told["neighbour"] == 3
        assert limited.report() == {"answer": 3}
        if os.getuid() == 0:
            assert len(_until_it_works(limited)) >= 2
        limited.ended_well()


def _as_nobody(command):
    """The command as a user who has no other processes, for root is exempt; it may still read what root may."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root is exempt from the limit on processes, and there is no setpriv to become another")
    uid, caps = str(200_000 + os.getpid()), "+dac_read_search"
    prefix = [setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    prefix += [f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set=-all,{caps}"]
    probe = [*prefix, sys.executable, "-c", "import pdsandbox.supervisor.host"]
    run = subprocess.run(probe, env=environment(), cwd="/", capture_output=True, timeout=PATIENCE_S, check=False)
    if run.returncode:
        pytest.skip(f"another user cannot run this Python: {run.stderr.decode()[-200:]}")
    return prefix + command
