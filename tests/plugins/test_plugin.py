"""`host.plugin` over every host: what counts as a failure, what is answered, and that nothing is started in between."""

from __future__ import annotations

import pytest

from pdsandbox import (
    I32,
    CallError,
    Capability,
    Cause,
    FuelExhausted,
    HostFunction,
    InstantiationError,
    Limits,
    Plugin,
    Quarantined,
    RestartPolicy,
    Standing,
    Trap,
    WasmImports,
)

COUNTER = """(module (memory (export "memory") 1)
  (func (export "next") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0)))
  (func (export "trap") (unreachable))
  (func (export "loop") (loop $l (br $l))))"""
#: Its start function asks the host, and traps if the answer is 1.
STARTING = """(module (import "m" "fails" (func $fails (result i32)))
  (func $start (if (call $fails) (then (unreachable)))) (start $start)
  (func (export "f") (result i32) (i32.const 7)))"""


class Clock:
    """Time stands still until a test moves it."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(host, clock):
    """make(source, imports=None, **policy): a plugin by this clock, without jitter."""
    made = []

    def plugin(source, imports=None, **policy):
        restart = RestartPolicy(**{"jitter": 0} | policy)
        made.append(Plugin(host, host.compile(source), imports, restart=restart, clock=clock, rand=lambda: 0.0))
        return made[-1]

    yield plugin
    for each in made:
        each.close()


@pytest.fixture
def starting(make):
    """starting(**policy): (a plugin, the list of its starts, a list of one: whether they fail)."""

    def plugin(**policy):
        starts, fails = [], [1]

        def answer(_caller):
            starts.append(None)
            return fails[0]

        imports = WasmImports(functions={("m", "fails"): HostFunction(answer, (), ("i32",))})
        return make(STARTING, imports, **policy), starts, fails

    return plugin


def test_one_instance_serves_all_calls(host):
    """It is started by the first call, and keeps its memory."""
    with host.plugin(host.compile(COUNTER)) as plugin:
        assert plugin.starts == 0
        assert [plugin.call("next") for _ in range(3)] == [[I32(1)], [I32(2)], [I32(3)]]
        assert plugin.use(lambda instance: instance.memory_read(0, 4)) == b"\3\0\0\0"
        assert (plugin.starts, plugin.standing) == (1, Standing.ADMITTED)


def test_errors_that_leave_the_instance_are_no_failures(make):
    """A trap, used up fuel and a caller's mistake are raised, are not retried, and change nothing."""
    plugin = make(COUNTER, on_failure="open")
    for _ in range(20):
        plugin.call("next")
        with pytest.raises(Trap):
            plugin.call("trap", idempotent=True)
        with pytest.raises(FuelExhausted):
            plugin.call("loop", fuel=1000, default="never")
        with pytest.raises(CallError):
            plugin.call("nothing")
    assert plugin.call("next") == [I32(21)]
    assert (plugin.starts, plugin.standing) == (1, Standing.ADMITTED)


def test_a_start_that_keeps_failing_is_tried_so_often_and_then_not(starting, clock):
    """Each failure is raised as it is; then `Quarantined`, at no cost, whoever asks; then one trial."""
    plugin, starts, fails = starting(restarts=3, backoff_s=1)
    for wait in (0, 0, 1, 2):
        if wait:
            with pytest.raises(Quarantined) as caught:
                plugin.call("f")
            assert caught.value.retry_after_s == wait
            assert plugin.standing is Standing.BACKING_OFF
        clock.now += wait
        with pytest.raises(InstantiationError) as caught:
            plugin.call("f", default="no")
        assert caught.value.cause is Cause.GUEST_TRAP
    assert len(starts) == 4
    told = []
    for _ in range(1000):
        clock.now += 0.2
        with pytest.raises(Quarantined) as caught:
            plugin.call("f", idempotent=True)
        told.append(caught.value)
    assert (len(starts), len(set(told)), told[0].cause) == (4, 1, Cause.GUEST_TRAP)
    assert "it failed 4 times within 60 s" in told[0].message
    assert (told[-1].until - told[-1].since).total_seconds() == 300
    assert told[-1].retry_after_s == pytest.approx(100)
    assert isinstance(told[-1].__cause__, InstantiationError)
    clock.now += 100
    with pytest.raises(InstantiationError):
        plugin.call("f")
    with pytest.raises(Quarantined):
        plugin.call("f")
    assert len(starts) == 5
    clock.now += 300
    fails[0] = 0
    assert [plugin.call("f") for _ in range(3)] == [[I32(7)]] * 3
    assert (len(starts), plugin.starts, plugin.standing) == (6, 1, Standing.ADMITTED)


def test_closed_means_that_nothing_is_started_again(starting, clock):
    """Until somebody resets it."""
    plugin, starts, fails = starting(on_failure="closed", quarantine_s=None)
    with pytest.raises(InstantiationError):
        plugin.call("f")
    fails[0] = 0
    clock.now += 1e6
    for _ in range(3):
        with pytest.raises(Quarantined) as caught:
            plugin.call("f", default="never")
        assert (caught.value.until, caught.value.retry_after_s) == (None, None)
    assert len(starts) == 1
    plugin.reset()
    assert plugin.call("f") == [I32(7)]


def test_open_means_that_callers_do_without(starting, clock):
    """The call that failed included; and it is tried again when its time has come."""
    plugin, starts, fails = starting(on_failure="open")
    assert [plugin.call("f", default="none") for _ in range(3)] == ["none"] * 3
    assert plugin.use(lambda instance: instance.call("f")) is None
    assert (len(starts), plugin.standing) == (1, Standing.QUARANTINED)
    fails[0] = 0
    clock.now += 300
    assert plugin.call("f", default="none") == [I32(7)]


def test_after_close_it_is_closed(make):
    """Whatever the policy says; and twice is allowed."""
    plugin = make(COUNTER, on_failure="open")
    plugin.call("next")
    plugin.close()
    plugin.close()
    for use in (lambda: plugin.call("next", default=1), lambda: plugin.use(lambda instance: 1, idempotent=True)):
        with pytest.raises(CallError) as caught:
            use()
        assert caught.value.cause is Cause.CLOSED
        assert not isinstance(caught.value, Quarantined)


def test_an_instance_that_was_killed_on_purpose_is_replaced_and_not_counted(make):
    """As often as one likes, and also where one failure is one too many."""
    plugin = make(COUNTER, on_failure="closed")
    for n in range(1, 4):
        assert plugin.call("next") == [I32(1)]
        plugin.use(lambda instance: instance.kill())
        assert (plugin.starts, plugin.standing) == (n, Standing.ADMITTED)


def test_it_cannot_be_used_while_it_is_being_started(host, make):
    """A host function that its start calls would wait for itself."""
    errors = []

    def fails(_caller):
        with pytest.raises(CallError, match="while it is being started") as caught:
            plugin.call("f")
        errors.append(caught.value.cause)
        return 0

    plugin = make(STARTING, WasmImports(functions={("m", "fails"): HostFunction(fails, (), ("i32",))}))
    assert plugin.call("f") == [I32(7)]
    assert errors == [Cause.USAGE]


def test_closed_by_its_own_start(make):
    """The instance that was about to be there is closed, too."""
    imports = WasmImports(functions={("m", "fails"): HostFunction(lambda caller: plugin.close() or 0, (), ("i32",))})
    plugin = make(STARTING, imports, on_failure="open")
    with pytest.raises(CallError) as caught:
        plugin.call("f")
    assert caught.value.cause is Cause.CLOSED


def test_mistakes_of_its_user(host, make):
    """What is no policy is refused at once; another host's module when it is used, and that is no failure of it."""
    with pytest.raises(TypeError, match="restart takes RestartPolicy, not str"):
        host.plugin(host.compile(COUNTER), restart="reload")

    class Foreign:
        sha256 = "0" * 64

    with Plugin(host, Foreign(), restart=RestartPolicy(on_failure="closed")) as plugin:
        for _ in range(2):
            with pytest.raises(InstantiationError) as caught:
                plugin.call("f")
            assert caught.value.cause is Cause.USAGE


def test_what_its_user_raises_goes_through(make):
    """An operation's own exception, of whatever class, is not the plugin's."""
    plugin = make(COUNTER, on_failure="open")

    def operation(instance):
        raise KeyError("mine")

    def borrowed(instance):
        raise Trap("somebody else's")

    for wrong, cls in ((operation, KeyError), (borrowed, Trap)):
        with pytest.raises(cls):
            plugin.use(wrong, idempotent=True)
    assert plugin.call("next") == [I32(1)]
    assert plugin.starts == 1


@pytest.mark.requires(Capability.WALL_CLOCK)
def test_limits_of_one_call_are_passed_on(make):
    """Fuel and time, with and without `idempotent`."""
    plugin = make(COUNTER)
    for idempotent in (False, True):
        assert plugin.call("next", wall_s=30.0, fuel=1000, idempotent=idempotent)
        with pytest.raises(CallError, match="wall_s"):
            plugin.call("next", wall_s=-1, idempotent=idempotent)


def test_hosts_say_their_limits(host):
    """A retry has to know how much time there is."""
    assert isinstance(host.limits, Limits)
