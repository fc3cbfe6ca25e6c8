"""`WasmActor` over every host: what lies where, what is sent when, and what becomes of messages that fail."""

from __future__ import annotations

import itertools

import pytest
from acting import ENVELOPE, GUEST, PAGE, Driven, count

from pdsandbox import (
    CallError,
    Cause,
    FuelExhausted,
    HostFunction,
    InstantiationError,
    MemoryAccessError,
    Quarantined,
    RestartPolicy,
    Trap,
    WasmActor,
    WasmImports,
)


def test_its_life(drive):
    """It greets, answers each message, says goodbye, and is closed; all in order, as one instance."""
    it = drive(start=False)
    assert (it.actor.plugin.starts, it.sent) == (0, [])
    assert it.actor.on_start() is True
    assert it.taken() == [b"s"]
    for number, payload in enumerate((b"one", b"", b"a third\0\xff"), 1):
        assert it.actor.on_message(ENVELOPE, payload) is True
        assert it.taken() == [payload, count(number)]
    assert it.envelopes == [bytes(80)] + [ENVELOPE] * 6
    it.actor.on_stop(-7)
    assert it.taken() == [count(-7)]
    assert it.actor.plugin.starts == 1
    it.actor.on_stop()
    assert it.taken() == []
    for use in (it.actor.on_start, lambda: it.actor.on_message(ENVELOPE)):
        with pytest.raises(CallError, match="the actor is stopped") as caught:
            use()
        assert caught.value.cause is Cause.CLOSED


def test_nothing_is_sent_before_the_call_has_succeeded(drive):
    """While the guest runs, what it sends only lies in the outbox."""
    seen = []
    imports = WasmImports(pd_log=lambda level, message: seen.append(list(it.sent)))
    it = drive(start=False, imports=imports)
    it.actor.on_start()
    it.actor.on_message(ENVELOPE, b"d")
    assert seen == [[b"s"]]
    assert it.taken() == [b"s", b"d", count(1)]


@pytest.mark.parametrize(
    ("payload", "cls", "cause"),
    [
        (b"t", Trap, Cause.GUEST_TRAP),
        (b"l", FuelExhausted, Cause.FUEL),
        (b"f", CallError, Cause.GUEST_EXIT),
        (b"d", CallError, Cause.HOST_FUNCTION),
    ],
    ids=["trap", "fuel", "status", "host function"],
)
def test_a_failing_message_drops_its_outbox_and_not_its_actor(drive, payload, cls, cause):
    """The one after it finds the same instance, and nothing of what that one sent."""

    def broken(level, message):
        raise ValueError("broken")

    it = drive("", 100_000, imports=WasmImports(pd_log=broken))
    it.taken()
    for number in range(2, 6, 2):
        with pytest.raises(cls) as caught:
            it.actor.on_message(ENVELOPE, payload + b" and more")
        assert caught.value.cause is cause
        assert it.taken() == []
        assert it.actor.on_message(ENVELOPE, b"fine"[::-1]) is True
        assert it.taken() == [b"enif", count(number)]
    assert it.actor.plugin.starts == 1


def test_a_status_is_told(drive):
    """As data, too."""
    it = drive()
    with pytest.raises(CallError, match="pd_actor_on_message failed with -3") as caught:
        it.actor.on_message(ENVELOPE, b"f")
    assert caught.value.exit_code == -3


def test_each_message_has_its_fuel(drive):
    """However many there are, and whatever the last one has left; with 0, the host's default."""
    it = drive("", 100_000)
    for _ in range(3):
        with pytest.raises(FuelExhausted):
            it.actor.on_message(ENVELOPE, b"l")
        it.actor.on_message(ENVELOPE, b"x")
    consumed = it.actor.plugin.use(lambda instance: instance.fuel_consumed())
    assert 300_000 < consumed < 400_000


def test_fuel_0_is_the_hosts_default(drive, host_factory):
    """Each message starts with the whole of it."""
    it = drive(on=host_factory(fuel=50_000))
    for n in range(1, 4):
        with pytest.raises(FuelExhausted):
            it.actor.on_message(ENVELOPE, b"l")
        consumed = it.actor.plugin.use(lambda instance: instance.fuel_consumed())
        assert n * 50_000 < consumed < n * 50_000 + 10_000


def test_a_memory_that_is_too_small_grows(drive):
    """Just as far as the message needs; the last byte is there."""
    it = drive(pages=4)
    size = lambda: it.actor.plugin.use(lambda instance: instance.memory_grow(0))  # noqa: E731
    for length, pages in ((PAGE - 80, 1), (PAGE - 79, 2), (2 * PAGE, 3), (10, 3), (4 * PAGE - 80, 4)):
        payload = b"x" * (length - 1) + b"!"
        it.taken()
        assert it.actor.on_message(ENVELOPE, payload) is True
        assert it.taken()[0] == payload
        assert size() == pages
    with pytest.raises(CallError, match=r"a message takes 262,145 bytes: the guest's memory has 262,144") as caught:
        it.actor.on_message(ENVELOPE, b"x" * (4 * PAGE - 79))
    assert (caught.value.limit, caught.value.observed, caught.value.cause) == (4 * PAGE, 4 * PAGE + 1, Cause.USAGE)
    assert it.actor.on_message(ENVELOPE, b"x") is True
    assert it.actor.plugin.starts == 1


def test_a_memory_that_may_not_grow_by_the_hosts_limit(drive, host_factory):
    """`memory_bytes` holds here, too."""
    it = drive(on=host_factory(memory_bytes=2 * PAGE), pages=100)
    assert it.actor.on_message(ENVELOPE, bytes(2 * PAGE - 80)) is True
    with pytest.raises(CallError, match="cannot grow"):
        it.actor.on_message(ENVELOPE, bytes(2 * PAGE - 79))


@pytest.mark.parametrize("params", range(5))
@pytest.mark.parametrize("result", ["", "(result i32)"])
def test_what_on_message_may_take(drive, params, result):
    """Nothing, the length, and before it where envelope and payload lie; with a status or without."""
    saw = []
    numbers = " ".join(f"(local.get {n})" for n in range(params))
    types = f"(param{' i32' * params})" if params else ""
    status = "(i32.const 0)" if result else ""
    source = f"""(module (import "m" "saw" (func $saw {types})) (memory (export "memory") 1)
      (func (export "pd_actor_on_message") {types} {result} (call $saw {numbers}) {status}))"""

    def told(caller, *args):
        saw.append((args, caller.memory_read(0, 85)))

    functions = {("m", "saw"): HostFunction(told, ("i32",) * params)}
    it = drive(source, imports=WasmImports(functions=functions))
    assert it.actor.on_message(ENVELOPE, b"hello") is True
    expected = [(), (5,), (0, 5), (0, 80, 5), (0, 80, 80, 5)][params]
    assert saw == [(expected, ENVELOPE + b"hello")]


MEMORY = '(memory (export "memory") 1)'
NO_ACTORS = {
    "nothing": ("", "exports no memory"),
    "no memory": ('(func (export "pd_actor_on_message"))', "exports no memory"),
    "no entry point": (MEMORY + '(func (export "pd_actor_on_start"))', "does not export pd_actor_on_message"),
    "no function": (MEMORY + '(global (export "pd_actor_on_message") i32 (i32.const 0))', "pd_actor_on_message is "),
    "a 64-bit length": (MEMORY + '(func (export "pd_actor_on_message") (param i64))', r"is .*i64"),
    "too many": (MEMORY + '(func (export "pd_actor_on_message") (param i32 i32 i32 i32 i32))', "which no actor has"),
    "ever so many": (MEMORY + f'(func (export "pd_actor_on_message") (param {"i32 " * 1000}))', "which no actor has"),
    "two results": (
        MEMORY + '(func (export "pd_actor_on_message") (result i32 i32) (i32.const 0) (i32.const 0))',
        "which no actor has",
    ),
    "start takes": (
        MEMORY + '(func (export "pd_actor_on_message")) (func (export "pd_actor_on_start") (param i32))',
        "pd_actor_on_start is",
    ),
    "stop takes two": (
        MEMORY + '(func (export "pd_actor_on_message")) (func (export "pd_actor_on_stop") (param i32 i32))',
        "pd_actor_on_stop is",
    ),
}


@pytest.mark.parametrize(("source", "why"), NO_ACTORS.values(), ids=NO_ACTORS)
def test_what_is_no_actor_is_refused_before_anything_starts(drive, source, why):
    """With the reason; as often as one asks, for that is no failure of a plugin."""
    it = drive(f"(module {source})", start=False, restart=RestartPolicy(on_failure="closed"))
    for _ in range(2):
        with pytest.raises(InstantiationError, match=why) as caught:
            it.actor.on_start()
        assert caught.value.cause is Cause.LINK
        assert len(str(caught.value)) < 500
    assert it.actor.plugin.starts == 0


def test_optional_entry_points(drive):
    """Neither start nor stop is needed; a stop without a reason is fine."""
    it = drive(f'(module {MEMORY} (func (export "pd_actor_on_message")))')
    assert it.actor.on_message(ENVELOPE) is True
    it.actor.on_stop()
    trapping = '(func (export "pd_actor_on_stop") unreachable)'
    it = drive(f'(module {MEMORY} (func (export "pd_actor_on_message")) {trapping})')
    with pytest.raises(Trap):
        it.actor.on_stop(3)
    assert it.actor.plugin.current() is None
    it.actor.on_stop(3)


FAILING_START = """(module (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "m" "answer" (func $answer (result i32)))
  (memory (export "memory") 1) (func (export "pd_actor_on_message"))
  (func (export "pd_actor_on_start") (result i32)
    (drop (call $send (i32.const 0) (i32.const 80) (i32.const 0) (i32.const 1))) (call $answer)))"""


def test_a_start_that_fails(drive):
    """Is told, sends nothing, and may be tried again as often as the policy says."""
    answers = [5, 6, 0]
    functions = {("m", "answer"): HostFunction(lambda caller: answers.pop(0), (), ("i32",))}
    it = drive(
        FAILING_START,
        start=False,
        imports=WasmImports(functions=functions),
        restart=RestartPolicy(restarts=2, backoff_s=0),
    )
    for status in (5, 6):
        with pytest.raises(InstantiationError, match=f"pd_actor_on_start failed with {status}") as caught:
            it.actor.on_start()
        assert (caught.value.cause, caught.value.exit_code) == (Cause.GUEST_EXIT, status)
        with pytest.raises(CallError, match="was not started"):
            it.actor.on_message(ENVELOPE)
    assert it.taken() == []
    assert it.actor.on_start() is True
    assert it.taken() == [b"\0"]


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_a_start_that_fails_where_it_may_not_be_tried_again(drive, on_failure):
    """Closed: messages are refused. Open: they are passed over."""
    functions = {("m", "answer"): HostFunction(lambda caller: 5, (), ("i32",))}
    restart = RestartPolicy(on_failure=on_failure)
    it = drive(FAILING_START, start=False, imports=WasmImports(functions=functions), restart=restart)
    if on_failure == "open":
        assert it.actor.on_start() is False
        assert it.actor.on_message(ENVELOPE) is False
    else:
        with pytest.raises(InstantiationError):
            it.actor.on_start()
        with pytest.raises(Quarantined):
            it.actor.on_start()
    it.actor.on_stop()
    assert (it.taken(), it.actor.plugin.starts) == ([], 0)


def test_a_send_function_that_raises(drive):
    """What it raised is told; that message and those after it are dropped, and the actor goes on."""
    it = drive()
    it.taken()
    failing = itertools.count()

    def send(envelope, payload):
        if next(failing) == 0:
            raise KeyError("no such address")
        it.take(envelope, payload)

    it.actor._send = send
    with pytest.raises(KeyError):
        it.actor.on_message(ENVELOPE, b"one")
    assert it.taken() == []
    assert it.actor.on_message(ENVELOPE, b"more") is True
    assert it.taken() == [b"more", count(2)]


def test_it_cannot_be_used_from_inside_itself(drive):
    """Neither by its send function nor by a host function."""
    errors = []

    def again(*_args):
        for use in (lambda: it.actor.on_message(ENVELOPE), it.actor.on_start, it.actor.on_stop):
            with pytest.raises(CallError, match="from inside its own") as caught:
                use()
            errors.append(caught.value.cause)

    it = drive(start=False, send=again, imports=WasmImports(pd_log=again))
    it.actor.on_start()
    it.actor.on_message(ENVELOPE, b"d")
    assert errors == [Cause.USAGE] * 12


def test_envelopes_that_the_guest_sends_have_80_bytes(drive):
    """Of others it hears -1, and nobody else hears."""
    answers = []
    source = """(module (import "pd" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
      (import "m" "told" (func $told (param i32))) (memory (export "memory") 1)
      (func $try (param i32) (call $told (call $send (i32.const 0) (local.get 0) (i32.const 0) (i32.const 0))))
      (func (export "pd_actor_on_message")
        (call $try (i32.const 79)) (call $try (i32.const 0)) (call $try (i32.const 80)) (call $try (i32.const 81))))"""
    functions = {("m", "told"): HostFunction(lambda caller, answer: answers.append(answer), ("i32",))}
    it = drive(source, imports=WasmImports(functions=functions))
    it.actor.on_message(ENVELOPE)
    assert (answers, it.envelopes) == ([-1, -1, 0, -1], [ENVELOPE])


def test_a_pointer_outside_its_memory_fails_the_message(drive):
    """As in any call."""
    source = """(module (import "pd" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "pd_actor_on_message") (result i32)
        (drop (call $send (i32.const 0) (i32.const 80) (i32.const 0) (i32.const 0)))
        (call $send (i32.const 0) (i32.const 80) (i32.const 65536) (i32.const 1))))"""
    it = drive(source)
    with pytest.raises(MemoryAccessError):
        it.actor.on_message(ENVELOPE)
    assert it.taken() == []


@pytest.mark.parametrize("envelope", [b"", bytes(79), bytes(81)])
def test_an_envelope_has_80_bytes(drive, envelope):
    """Any other is the caller's mistake."""
    it = drive()
    with pytest.raises(CallError, match="an envelope has 80 bytes, not") as caught:
        it.actor.on_message(envelope, b"x")
    assert (caught.value.cause, caught.value.observed) == (Cause.USAGE, len(envelope))
    assert it.actor.on_message(bytearray(ENVELOPE), memoryview(b"x")) is True


def test_mistakes_of_its_user(host, drive):
    """A typed error for each, and the actor is as before."""
    module = host.compile(GUEST.format(pages=1))
    for wrong in (-1, True, 1.0, "1", None, 2**63):
        with pytest.raises(ValueError, match="fuel_per_message must be"):
            WasmActor(module, host, wrong, send=print)
    with pytest.raises(TypeError, match="send takes a function, not str"):
        WasmActor(module, host, send="print")
    with pytest.raises(TypeError, match="imports must be WasmImports, not dict"):
        WasmActor(module, host, send=print, imports={})
    with pytest.raises(ValueError, match="imports have a pd_send of their own"):
        WasmActor(module, host, send=print, imports=WasmImports(pd_send=lambda e, p: 0))
    with pytest.raises(TypeError, match="restart takes RestartPolicy"):
        WasmActor(module, host, send=print, restart="open")
    it = Driven(host)
    with pytest.raises(CallError, match="the actor was not started"):
        it.actor.on_message(ENVELOPE)
    it = drive()
    with pytest.raises(CallError, match="the actor was started before"):
        it.actor.on_start()
    for wrong in (2**31, -(2**31) - 1, 1.0, "stop", None, True):
        with pytest.raises(CallError, match="the reason to stop is an i32"):
            it.actor.on_stop(wrong)
    for wrong in (1, "x" * 80, None):
        with pytest.raises(CallError, match="the envelope must be bytes, not"):
            it.actor.on_message(wrong)
        with pytest.raises(CallError, match="the payload must be bytes, not"):
            it.actor.on_message(ENVELOPE, wrong)
    assert it.actor.on_message(ENVELOPE, b"x") is True
