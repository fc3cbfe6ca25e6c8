"""The fork server and its children hold nothing of the user's process: no memory, environment or descriptor."""

from __future__ import annotations

import os
import secrets
import signal

import psutil
import pytest
from leaks import wait_until
from programs import COMPILER, WORKER, environment, fork_server, holds, links, named, signals, status

SOURCE = """
    import os, sys, threading
    from pdsandbox import HostFunction, Limits, Supervisor, WasmImports, in_worker
    from userland import ADD, await_word, failure, say, slow_source

    planted = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
    os.set_inheritable(planted, True)
    os.dup2(planted, 100)
    heap = await_word()
    shipped = await_word()
    host = Supervisor(limits=Limits(compile_wall_s=None), spares=1)
    plain = host.instantiate(host.compile(ADD))

    CALLS = '(module (import "m" "f" (func $f (result i32))) (func (export "run") (result i32) (call $f)))'
    functions = {("m", "f"): HostFunction(in_worker(lambda caller: len(shipped)), results=("i32",))}
    chosen = host.instantiate(host.compile(CALLS), WasmImports(functions=functions))
    threading.Thread(target=failure, args=(lambda: host.compile(slow_source()),), daemon=True).start()
    say(plain=plain.pid, chosen=chosen.pid, size=chosen.func("run")())
    await_word()
    host.close()
"""


@pytest.fixture
def secret():
    """Four secrets, as bytes, that are nowhere else."""
    return {name: f"{name}-{secrets.token_hex(16)}".encode() for name in ("environ", "argv", "heap", "shipped")}


@pytest.fixture
def busy(program, tmp_path, secret, wait_for):
    """A program with secrets, with an instance, one with a secret shipped to it, a spare and a compiler at work."""
    env = environment(SECRET=secret["environ"].decode())
    with program(SOURCE, secret["argv"].decode(), tmp_path / "planted", env=env, cwd=tmp_path) as script:
        for name in ("heap", "shipped"):
            script.word(secret[name].decode())
        pids = script.report()
        assert pids.pop("size") == len(secret["shipped"])
        wait_for(lambda: len(named(WORKER, script.pid)) == 3)
        (pids["spare"],) = {*named(WORKER, script.pid)} - {*pids.values()}
        wait_for(lambda: named(COMPILER, script.pid) != [])
        (pids["compiler"],) = named(COMPILER, script.pid)
        # While it locks itself down, which takes a millisecond, it holds what it will be confined to.
        wait_for(lambda: psutil.Process(pids["compiler"]).cpu_times().user > 0.1)
        os.kill(pids["compiler"], signal.SIGSTOP)  # so that it is still there when we look
        pids["fork server"] = fork_server(script.pid)
        pids["program"] = script.pid
        yield pids
        os.kill(pids["compiler"], signal.SIGCONT)
        script.word()
        script.ended_well()


def test_no_secret_is_in_any_memory(busy, secret):
    """What is in the program's environment, arguments and heap is in no other process; what is shipped, only there."""
    try:
        found = {who: holds(pid, secret) for who, pid in busy.items()}
    except PermissionError as exc:
        pytest.skip(f"may not read other processes' memory: {exc}")
    assert found.pop("program") == {*secret}, "the search itself works"
    assert found.pop("chosen") == {"shipped"}
    assert found == {"plain": set(), "spare": set(), "compiler": set(), "fork server": set()}


def test_no_environment_directory_or_descriptor_is_inherited(busy, tmp_path):
    """Empty environment, `/`, /dev/null; the fork server has its socket, children their pipes; and nothing else."""
    program = busy.pop("program")
    assert links(program)[100] == str(tmp_path / "planted"), "the search itself works"
    for who, pid in busy.items():
        with open(f"/proc/{pid}/environ", "rb") as environ:
            assert environ.read() == b"", who
        assert os.readlink(f"/proc/{pid}/cwd") == "/", who
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as cmdline:
            assert str(tmp_path) not in cmdline.read(), who
        if who == "fork server":
            # While it forks a spare, that one's ends are in its hands.
            assert wait_until(
                lambda pid=pid: not any(t.startswith("pipe:") for fd, t in links(pid).items() if fd > 2), 60
            )
        found = links(pid)
        assert (found.pop(0), found.pop(1)) == ("/dev/null", "/dev/null"), who
        assert found.pop(2).startswith("pipe:"), who
        kinds = sorted(target.partition(":")[0] for target in found.values())
        if who == "fork server":
            allowed = {"socket", "anon_inode"}  # control; pidfds and the poll
        elif who == "spare":
            allowed = {"pipe", "socket"}  # it still has to get its module
        elif who == "compiler":
            allowed = {"pipe", "socket"}
        else:
            allowed = {"pipe", "/memfd"}  # the second: its own module, sealed
        assert {*kinds} <= allowed, (who, found)
        assert kinds.count("pipe") == (0 if who == "fork server" else 2), (who, found)
        assert kinds.count("socket") <= 1, (who, found)
    shared = {*links(busy["plain"]).values()} & {*links(busy["chosen"]).values()}
    assert not {target for target in shared if target.startswith(("pipe", "socket"))}


def test_own_session_one_thread_and_no_interrupts(busy):
    """One session of their own, one thread each, SIGINT ignored, no way to trace back to the user's terminal."""
    program = busy.pop("program")
    session = busy["fork server"]
    assert os.getsid(program) != session
    for who, pid in busy.items():
        assert os.getsid(pid) == session, who
        assert os.getpgid(pid) == session, who
        assert status(pid)["Threads"] == "1", who
        assert signal.SIGINT in signals(pid, "SigIgn"), who
        assert not signals(pid, "SigBlk"), who
        with open(f"/proc/{pid}/stat") as stat:
            assert stat.read().rpartition(")")[2].split()[4] == "0", f"{who} has a terminal"


def test_the_supervisors_process_never_loads_the_engine(program):
    """After real use of everything, sys.modules holds neither wasmtime nor a room that runs elsewhere."""
    with program("""
        import os, pathlib, sys
        from pdsandbox import HostFunction, Supervisor, WasmImports, WorkerCrashed, in_worker
        from userland import failure, say

        WAT = '''(module (import "m" "here" (func $here (result i32))) (import "m" "there" (func $there))
          (memory (export "memory") 1)
          (func (export "here") (result i32) (call $here)) (func (export "there") (call $there)))'''

        def there(caller):
            os._exit(1)

        with Supervisor() as host:
            functions = {
                ("m", "here"): HostFunction(lambda caller: len(caller.memory_read(0, 7)), results=("i32",)),
                ("m", "there"): HostFunction(in_worker(there)),
            }
            instance = host.instantiate(host.compile(WAT), WasmImports(functions=functions))
            assert instance.func("here")() == 7
            assert len(instance.call_many("here", [()] * 3)) == 3
            instance.memory_write(0, b"x" * 65536)
            assert instance.memory_read(0, 65536) == b"x" * 65536
            assert failure(lambda: host.compile("(module"))["error"] == "CompileError"
            assert failure(lambda: instance.call("there"))["error"] == "WorkerCrashed"
        say(modules=sorted(sys.modules))
        say(libraries="wasmtime" in pathlib.Path("/proc/self/maps").read_text())
    """) as script:
        modules = script.report()["modules"]
        assert script.report() == {"libraries": False}
        script.ended_well()
    rooms = [f"pdsandbox.{room}" for room in ("runtime", "worker", "forkserver")]
    assert [name for name in modules if name.startswith(("wasmtime", *rooms))] == []
    assert "pdsandbox.supervisor.host" in modules
