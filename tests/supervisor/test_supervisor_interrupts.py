"""KeyboardInterrupt and other exceptions of signal handlers: they end what runs, at once, and never leave half of it.

After any interrupt an instance either answers right or reports CANCELLED, to its own thread and to others alike;
nobody hangs, and no turn stays taken.
"""

from __future__ import annotations

import functools
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from interrupts import Injector, Interrupt
from supervising import GUEST, PAGE, PATIENCE_S, Thread, import_path, imports, make_guest, wait_process_ends

from pdsandbox import I32, Cause, WasmError, WorkerCrashed
from pdsandbox.supervisor.forkclient import ForkServer
from pdsandbox.supervisor.memory import PIECE_BYTES

SCRIPT = """
import os, sys
sys.path[:0] = sys.argv[1:]
from supervising import GUEST, children_of, fork_server_of, imports
from pdsandbox import Limits, Supervisor, WasmError
from pdsandbox.platform import os_
def refused(*_args, **_options):
    raise PermissionError(1, "not permitted")
host = Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=1)
def tell(_value):
    print(*everybody(), flush=True)
    {inside}
def everybody():
    return [fork_server_of(host).pid, *(handle.pid for handle in children_of(host))]
module = host.compile(GUEST.replace('(func (export "trap")', '(func $s {start}) (start $s) (func'))
instance = host.instantiate(module, imports(tell=tell, ask=tell))
{operation}
"""
LOOP = "(call $tell (i32.const 1)) (loop $l (br $l))"
SCRIPTS = {
    "a call": {"operation": 'instance.call("run")'},
    "a batch": {"operation": 'instance.call_many("run_if", [[0], [1]])'},
    "a host function": {"operation": 'instance.call("tell", [1])', "inside": "import signal; signal.pause()"},
    "a start function": {"operation": "", "start": LOOP},
    "a worker that does not answer": {
        "operation": "import signal; os.kill(instance.pid, signal.SIGSTOP); print(*everybody(), flush=True);"
        "instance.call('ok')"
    },
    "a worker that gives nothing of its memory": {
        "operation": "import signal; os.kill(instance.pid, signal.SIGSTOP); print(*everybody(), flush=True);"
        "os_.copy_process = refused; instance.memory_read(0, 1)"
    },
}


@pytest.mark.parametrize("parts", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("closes", [False, True], ids=["unclosed", "with"])
@pytest.mark.orphans
def test_control_c_ends_a_script_at_once(parts, closes):
    """SIGINT while the worker is known to run: KeyboardInterrupt leaves the script, every process is gone with it."""
    text = SCRIPT.format(**{"inside": "", "start": "", "operation": "", **parts})
    if closes:
        text = text.replace("host = Sup", "with Sup").replace("spares=1)", "spares=1) as host:", 1)
        head, body = text.split("as host:\n")
        text = head + "as host:\n" + "".join(f"    {line}\n" for line in body.splitlines())
    script = subprocess.Popen(
        [sys.executable, "-c", text, *import_path()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with script:
        try:
            pids = [int(pid) for pid in script.stdout.readline().split() if pid != "None"]
            assert len(pids) >= 2
            script.send_signal(signal.SIGINT)
            assert script.wait(PATIENCE_S) == -signal.SIGINT
            assert script.stderr.read().rstrip().endswith("KeyboardInterrupt")
        finally:
            if script.poll() is None:
                script.kill()
    for pid in pids:
        wait_process_ends(pid)


def state_of(instance):
    """Either "usable" or "cancelled", as this thread and another one find it; anything else fails."""

    def use():
        try:
            assert instance.call("add", [20, 22], wall_s=10.0) == [I32(42)]
            assert instance.memory_read(0, 1) == b"\0"
        except WasmError as exc:
            if (type(exc), exc.cause) != (WorkerCrashed, Cause.CANCELLED) or instance.alive:
                raise
            return "cancelled"
        return "usable"

    state = use()
    assert Thread(use).result() == state
    return state


def expect_trap(instance):
    try:
        instance.call("trap")
    except WasmError:
        return
    raise AssertionError


#: More than is copied in one step: half of it written, a guest's memory is not what anybody meant.
LONG = 2 * PIECE_BYTES
SPACIOUS = GUEST.replace('"memory") 1)', f'"memory") {1 + LONG // PAGE})')
OPERATIONS = {
    "the first call": lambda instance: instance.call("next"),
    "call": lambda instance: instance.call("add", [1, 2]),
    "a host call": lambda instance: instance.call("ask", [1]),
    "call_many": lambda instance: instance.call_many("add", [[1, 2], [3, 4]]),
    "func": lambda instance: instance.func("add")(1, 2),
    "memory_read": lambda instance: instance.memory_read(0, 100),
    "memory_read of much": lambda instance: instance.memory_read(PAGE, LONG),
    "memory_read_into": lambda instance: instance.memory_read_into(0, bytearray(100)),
    "memory_write": lambda instance: instance.memory_write(0, bytes(100)),
    "memory_write of much": lambda instance: instance.memory_write(PAGE, bytes(LONG)),
    "set_fuel": lambda instance: instance.set_fuel(2**62),
    "an error": expect_trap,
}


#: What changes nothing in a worker, or does so in one step, may be left at any point without a loss.
HARMLESS = ("set_fuel", "memory_read", "memory_read of much", "memory_read_into", "memory_write")


@pytest.mark.parametrize(("name", "operation"), OPERATIONS.items(), ids=OPERATIONS)
def test_an_interrupt_at_every_point_of_an_operation(host, name, operation):
    """Wherever it comes, it leaves the operation, and the instance is as good as new or CANCELLED."""
    assert interrupted_everywhere(host, name, operation) is (name not in HARMLESS)


@pytest.mark.parametrize("name", ["memory_read", "memory_read_into", "memory_write"])
@pytest.mark.usefixtures("piped")
def test_an_interrupt_at_every_point_of_a_conversation_about_memory(host, name):
    """The same where the worker has a part in it."""
    assert interrupted_everywhere(host, name, OPERATIONS[name])


def interrupted_everywhere(host, name, operation):
    """Whether any interrupt cost the worker its life."""
    module = host.compile(SPACIOUS)
    instance, number, misses, cancelled = None, 0, 0, 0
    while misses < 5:  # how often the code spins differs from run to run
        if instance is None:
            instance = host.instantiate(module, imports())
            if name != "the first call":
                instance.memory_write(0, b"")
                instance.call("add", [1, 2])
                instance.call("ask", [1])
        injector = Injector(number)
        try:
            injector.run(functools.partial(operation, instance))
        except Interrupt:
            assert injector.where
        misses = 0 if injector.where else misses + 1
        number += 1
        try:
            state = state_of(instance)
        except BaseException as exc:
            raise AssertionError(f"after an interrupt {injector.where}") from exc
        if state == "cancelled" or name == "the first call":
            cancelled += state == "cancelled"
            instance.close()
            instance = None
    assert number > 10  # 14 on Python 3.13 for the shortest, set_fuel; more where code is compiled otherwise
    return cancelled > 0


class _Alarm(KeyboardInterrupt):
    pass


@pytest.fixture
def alarms(monkeypatch):
    """alarms(seconds): _Alarm is raised in this, the main, thread after that long; alarms(0): not any more.

    One that comes in a finaliser is swallowed by Python, so there is another one every 50 ms; but not in the test
    itself, which has caught the first one by then, and got no core to stop the others.
    """
    rung = [False]

    def ring(_number, frame):
        if rung[0] and frame.f_code.co_filename == ring.__code__.co_filename:
            return
        rung[0] = True
        raise _Alarm

    def set_alarm(seconds):
        if seconds:
            rung[0] = False
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)

    # pytest's own hook is Python too, and an alarm inside it would fail the test for what is nobody's fault.
    monkeypatch.setattr(sys, "unraisablehook", lambda _lost: None)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield set_alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.hammer
def test_interrupts_at_random_moments_of_a_busy_loop(host, alarms):
    """Hundreds of them, delivered by the kernel: never a wrong answer, never a hang, never a turn left taken."""
    rng, rounds, cancelled, calls = random.Random(5), 300, 0, 0
    instance = None
    started = time.monotonic()
    for _ in range(rounds):
        if time.monotonic() - started > 20:
            break  # a slow machine; what was done is enough
        if instance is None or not instance.alive:
            instance = make_guest(host)
            add = instance.func("add")
            add(1, 2)
        try:
            alarms(rng.uniform(20e-6, 400e-6))
            for value in range(1_000_000):
                calls += 1
                assert add(value, 1) == value + 1
                assert instance.call("ask", [value]) == [I32(value)]
                assert instance.call_many("add", [[value, 2]]) == [[I32(value + 2)]]
                assert instance.memory_read(0, 8) == bytes(8)
        except _Alarm:
            pass
        finally:
            alarms(0)
        cancelled += state_of(instance) == "cancelled"
    assert calls > cancelled > 0


@pytest.mark.parametrize("answered", [False, True], ids=["unanswered", "answered"])
def test_an_interrupt_right_after_asking_for_a_worker(host, monkeypatch, answered):
    """The request is out, its answer may even be there, and nobody waits for it: no other instance suffers, no process
    and no descriptor is left."""
    neighbour = make_guest(host)
    send, ours = ForkServer._send, threading.get_ident()

    def interrupted(self, packet, fds, **options):
        send(self, packet, fds, **options)
        if threading.get_ident() != ours:
            return  # the housekeeper, which acknowledges the end of an earlier child, and gets no signal
        if answered:
            assert self._handles[packet.ticket].wait_settled(PATIENCE_S)
        monkeypatch.undo()
        raise KeyboardInterrupt

    for use in (lambda: make_guest(host), lambda: host.compile('(module (func (export "interrupted")))')):
        monkeypatch.setattr(ForkServer, "_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            use()
        # What was sent comes before this one's answer.
        assert make_guest(host).call("ok") == [I32(42)]
        assert neighbour.call("ok") == [I32(42)]
    assert neighbour.alive


# A finaliser that is interrupted, or descriptors that had no owner yet, may cost a few descriptors for each unlucky
# interrupt: the price of signals in Python, accepted. So these two run in a process of their own and count processes.
LONGER = """
import gc, random, signal, sys, warnings
sys.path[:0] = sys.argv[2:]
warnings.simplefilter("ignore")
sys.unraisablehook = lambda _unraisable: None
from interrupts import Injector, Interrupt
from leaks import descendants, wait_until
from pdsandbox import Limits, Supervisor
from supervising import Thread, make_guest
what, made, neighbour = sys.argv[1], 0, None
what, _, first = what.partition(" from ")
isolation = "module" if what == "share" else "instance"
host = Supervisor(limits=Limits(fuel=None, wall_s=60.0), isolation=isolation, spares=0)

def operate():
    global made
    made += 1
    if what == "compile":
        host.compile(f'(module (func (export "n") (result i32) (i32.const {made})))')
    else:
        instance = make_guest(host)
        instance.close() if what != "close" else injector.run(instance.close)

def works(where):
    def use():
        with make_guest(host) as instance:
            return instance.call("ok")[0].value
    assert (use(), Thread(use).result()) == (42, 42), where
    if what == "share":  # it lives on, unless it was in the middle of being joined
        global neighbour
        if neighbour is None or not neighbour.alive:
            neighbour = make_guest(host)
        assert neighbour.call("ok")[0].value == 42, where

def every_seventh_point():
    global injector
    number, misses = int(first or 0), 0
    while misses < 3:
        injector = Injector(number)
        try:
            operate() if what == "close" else injector.run(operate)
        except Interrupt:
            pass
        misses = 0 if injector.where else misses + 1
        number += 7
        works(injector.where)

def random_moments():
    class Alarm(KeyboardInterrupt): pass
    def ring(*_): raise Alarm
    signal.signal(signal.SIGALRM, ring)
    rng = random.Random(7)
    for _ in range(60):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(50e-6, 8e-3), 0.05)
            while True:
                operate()
        except Alarm:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        works("an alarm")

operate() if what != "close" else works("the start")
random_moments() if what == "random" else every_seventh_point()
host.close()
assert wait_until(lambda: not descendants()), "a process is left after close"
print("right", flush=True)
"""


@pytest.mark.parametrize("what", ["instantiate", "share", "share from 1", "share from 3", "compile", "close", "random"])
@pytest.mark.hammer
def test_an_interrupt_in_what_is_longer(what):
    """Every seventh point of instantiating (also beside a neighbour in its worker), compiling, closing, and random
    moments: it works on; close ends it all."""
    script = [sys.executable, "-c", LONGER, what, *import_path()]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr[-3000:]
