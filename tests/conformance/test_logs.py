"""`pd_log` has no answer, so a host may let the guest go on before the message is taken: nobody must notice."""

from __future__ import annotations

import pytest

from pdsandbox import I32, CallError, Cause, HostFunction, InstantiationError, Trap, TrapCode, WasmImports

#: `many`, `mixed`: n rounds. The others log once, level 1, and go on as their names say.
GUEST = """(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "h" "mark" (func $mark (param i32) (result i32)))
  (memory (export "memory") 1)
  (global $runs (mut i32) (i32.const 0))
  (func $say (param $n i32)
    (i32.store (i32.const 64) (local.get $n))
    (call $log (local.get $n) (i32.const 64) (i32.const 4))
    (i32.store (i32.const 64) (i32.const -1)))
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "runs") (result i32) (global.get $runs))
  (func (export "one") (param i32) (result i32)
    (global.set $runs (i32.add (global.get $runs) (i32.const 1))) (call $say (local.get 0)) (local.get 0))
  (func (export "many") (param $n i32) (local $i i32)
    (loop $l (if (i32.lt_u (local.get $i) (local.get $n)) (then
      (call $say (local.get $i)) (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)))))
  (func (export "mixed") (param $n i32) (local $i i32)
    (loop $l (if (i32.lt_u (local.get $i) (local.get $n)) (then
      (call $say (local.get $i))
      (call $say (local.get $i))
      (drop (call $mark (local.get $i)))
      (call $say (local.get $i))
      (i32.store (i32.const 80) (local.get $i))
      (drop (call $send (i32.const 80) (i32.const 4) (i32.const 0) (i32.const 0)))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)))))
  (func (export "returns") (result i32) (call $say (i32.const 1)) (i32.const 7))
  (func (export "traps") (call $say (i32.const 1)) (unreachable))
  (func (export "divides") (result i32) (call $say (i32.const 1)) (i32.div_s (i32.const 1) (i32.const 0)))
  (func (export "marks") (result i32) (call $say (i32.const 1)) (call $mark (i32.const 2)))
  (func (export "marks on and on") (call $say (i32.const 1)) (loop $l (drop (call $mark (i32.const 2))) (br $l)))
  (func (export "logs again") (call $say (i32.const 1)) (call $say (i32.const 2)))
  (func (export "logs on and on") (call $say (i32.const 1)) (loop $l (call $say (i32.const 2)) (br $l)))
  (func (export "computes") (call $say (i32.const 1)) (loop $l (br $l)))
  (func (export "points outside") (call $say (i32.const 1)) (call $log (i32.const 2) (i32.const -1) (i32.const 1)))
  (func (export "recurses") (call $say (i32.const 1)) (call $deep))
  (func $deep (call $deep))
  {start})"""
#: What a guest may do once its log has failed; most are no end for themselves, so it must be that failure.
AFTERWARDS = [
    "returns",
    "traps",
    "divides",
    "marks",
    "marks on and on",
    "logs again",
    "logs on and on",
    "computes",
    "points outside",
    "recurses",
]
FUEL = 50_000_000


class Untold(Exception):
    """What a log raises."""


class Scene:
    """Callbacks, what they saw, and the level whose log raises `original`."""

    def __init__(self):
        self.seen = []
        self.bad = None
        self.original = Untold("secret")

    def log(self, level, message):
        self.seen.append(("log", level, int.from_bytes(message, "little")))
        if level == self.bad:
            raise self.original

    def send(self, envelope, _payload):
        self.seen.append(("send", int.from_bytes(envelope, "little")))
        return 0

    def mark(self, _caller, value):
        self.seen.append(("mark", value))
        return value

    def imports(self):
        functions = {("h", "mark"): HostFunction(self.mark, ("i32",), ("i32",))}
        return WasmImports(pd_log=self.log, pd_send=self.send, functions=functions)


@pytest.fixture
def scene():
    return Scene()


@pytest.fixture
def guest(fuelled, instantiate, scene):
    return instantiate(GUEST.format(start=""), scene.imports(), on=fuelled)


def failed(scene, action):
    """The CallError, cause HOST_FUNCTION, with the log's exception chained and untold."""
    with pytest.raises(CallError) as caught:
        action()
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.__cause__ is scene.original
    assert "secret" not in str(caught.value)
    return caught.value


def test_logs_arrive_whole_and_in_order(guest, scene):
    """Each with what the guest's memory held when it was made, though the guest overwrites that at once; none is left
    when the call returns."""
    for _ in range(3):
        guest.call("many", [2000])
        assert scene.seen == [("log", i, i) for i in range(2000)]
        scene.seen.clear()


def test_logs_and_other_host_calls_keep_their_order(guest, scene):
    """A host call sees every log that was made before it and none that was not; also in a batch."""
    guest.call("mixed", [300])
    expected = [
        item for i in range(300) for item in (("log", i, i), ("log", i, i), ("mark", i), ("log", i, i), ("send", i))
    ]
    assert scene.seen == expected
    scene.seen.clear()
    guest.call_many("mixed", [[2], [300]])
    assert scene.seen == expected[:10] + expected


@pytest.mark.parametrize("where", ["first", "warm", "func"])
@pytest.mark.parametrize("afterwards", AFTERWARDS)
def test_a_log_that_raises_ends_the_call(guest, scene, afterwards, where):
    """Whatever the guest does next, and whatever that would end in: nothing of it is carried out, and the instance
    stays usable."""
    if where != "first" and afterwards in ("returns", "marks"):
        guest.call(afterwards, [])
        scene.seen.clear()
    scene.bad = 1
    for _ in range(3):
        failed(scene, guest.func(afterwards) if where == "func" else lambda: guest.call(afterwards, []))
        assert scene.seen == [("log", 1, 1)]
        assert guest.alive
        scene.seen.clear()
        assert guest.call("ok", []) == [I32(42)]
    scene.bad = None
    assert guest.call("returns", []) == [I32(7)]


def test_a_log_that_raises_late(guest, scene):
    """All before it was taken, and nothing after it, however far the guest has come meanwhile."""
    scene.bad = 700
    failed(scene, lambda: guest.call("many", [5000]))
    assert scene.seen == [("log", i, i) for i in range(701)]
    scene.seen.clear()
    failed(scene, lambda: guest.call("mixed", [5000]))
    assert len(scene.seen) == 700 * 5 + 1
    assert scene.seen[-1] == ("log", 700, 700)


def test_without_a_failure_the_guest_ends_as_it_does(guest, scene):
    """A log that went well hides no trap, no fuel, no limit."""
    with pytest.raises(Trap) as caught:
        guest.call("divides", [])
    assert caught.value.trap_code is TrapCode.INTEGER_DIVISION_BY_ZERO
    assert caught.value.__cause__ is None
    assert guest.call("marks", []) == [I32(2)]
    assert scene.seen == [("log", 1, 1)] * 2 + [("mark", 2)]


def test_no_failure_outlives_its_call(guest, scene):
    """2,000 calls by turns, one whose last log raises and one that must not notice: bit for bit."""
    data = bytes(range(256))
    guest.memory_write(1000, data)
    for i in range(1000):
        scene.bad = 1
        failed(scene, lambda i=i: guest.call(AFTERWARDS[i % 4], []))
        scene.bad = None
        match i % 6:
            case 0:
                assert guest.call("ok", []) == [I32(42)]
            case 1:
                assert guest.call("returns", []) == [I32(7)]
            case 2:
                assert guest.func("marks")() == 2
            case 3:
                assert guest.call_many("one", [[1], [2]]) == [[I32(1)], [I32(2)]]
            case 4:
                assert guest.memory_read(1000, 256) == data
            case _:
                guest.memory_write(1000, data)
    assert guest.alive


def test_in_a_batch_the_row_counts(guest, scene):
    """A log that raises ends the very row that made it: `.row` and `.results` say so, and no later row has run."""
    rows = [[n] for n in range(10)]
    assert guest.call_many("one", rows) == [[I32(n)] for n in range(10)]
    for bad in (0, 4, 9):
        scene.seen.clear()
        scene.bad = bad
        before = guest.call("runs", [])[0].value
        error = failed(scene, lambda: guest.call_many("one", rows))
        assert (error.row, error.results) == (bad, [[I32(n)] for n in range(bad)])
        assert scene.seen == [("log", n, n) for n in range(bad + 1)]
        assert guest.call("runs", []) == [I32(before + bad + 1)]


def test_in_a_start_function(host, instantiate, scene):
    """Its logs arrive before the instance does; one that raises ends instantiating."""
    source = GUEST.format(start="(func $start (call $say (i32.const 5)) (call $say (i32.const 6))) (start $start)")
    guest = instantiate(source, scene.imports())
    assert scene.seen == [("log", 5, 5), ("log", 6, 6)]
    assert guest.call("returns", []) == [I32(7)]
    for bad, seen in ((5, 1), (6, 2)):
        scene.seen.clear()
        scene.bad = bad
        with pytest.raises(InstantiationError) as caught:
            host.instantiate(host.compile(source), scene.imports())
        assert caught.value.cause is Cause.HOST_FUNCTION
        assert caught.value.__cause__ is scene.original
        assert len(scene.seen) == seen


@pytest.mark.parametrize("original", [SystemExit(3), GeneratorExit(), BaseException("bare")], ids=repr)
def test_whatever_a_log_raises(guest, scene, original):
    """An exception that is no Exception ends the call like any other."""
    scene.bad, scene.original = 1, original
    with pytest.raises(CallError) as caught:
        guest.call("returns", [])
    assert caught.value.__cause__ is original
    assert guest.call("ok", []) == [I32(42)]


@pytest.mark.parametrize("afterwards", ["returns", "logs on and on", "traps"])
def test_an_interrupt_in_a_log_goes_through(guest, scene, afterwards):
    """Ctrl-C means the program: as it is, at once."""
    scene.bad, scene.original = 1, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        guest.call(afterwards, [])
    assert caught.value is scene.original
    assert scene.seen == [("log", 1, 1)]


def test_a_log_may_use_another_instance_and_not_its_own(guest, scene, instantiate):
    """Its own is in use; another one is as free as ever."""
    other = instantiate('(module (func (export "f") (result i32) (i32.const 5)))')
    answers = []

    def log(level, message):
        answers.append(other.call("f", []))
        with pytest.raises(CallError) as caught:
            guest.call("ok", [])
        assert caught.value.cause is Cause.USAGE

    scene.log = log
    busy = instantiate(GUEST.format(start=""), scene.imports())
    guest = busy
    busy.call("many", [20])
    assert answers == [[I32(5)]] * 20


def test_host_calls_count_logs(host_factory, instantiate, scene):
    """Just as many as `host_calls` are taken, exactly; a log beyond it ends the call."""
    host = host_factory(fuel=FUEL, host_calls=100)
    for calls in (1, 99, 100, 101, 5000):
        guest = instantiate(GUEST.format(start=""), scene.imports(), on=host)
        for _ in range(2):
            scene.seen.clear()
            if calls <= 100:
                guest.call("many", [calls])
                assert len(scene.seen) == calls
                continue
            with pytest.raises(CallError) as caught:
                guest.call("many", [calls])
            assert (caught.value.cause, caught.value.limit) == (Cause.HOST_FUNCTION, 100)
            assert caught.value.__cause__ is None
            assert len(scene.seen) == 100
            assert guest.call("ok", []) == [I32(42)]


def test_a_failed_log_comes_before_a_limit_that_is_met_later(host_factory, instantiate, scene):
    """The first cause wins."""
    guest = instantiate(GUEST.format(start=""), scene.imports(), on=host_factory(fuel=FUEL, host_calls=10))
    scene.bad = 1
    failed(scene, lambda: guest.call("logs on and on", []))
    assert scene.seen == [("log", 1, 1)]
