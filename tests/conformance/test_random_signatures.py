"""Random signatures and random bits: what a host answers is what was put in, and what plain wasmtime answers."""

from __future__ import annotations

import functools
import math

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsandbox import F32, F64, I32, I64, CallError, Cause, HostFunction, Limits, Supervisor, WasmImports, WasmtimeHost

VALUES = {
    "i32": st.integers(-(2**31), 2**31 - 1).map(I32),
    "i64": st.integers(-(2**63), 2**63 - 1).map(I64),
    "f32": st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0x7FA00001, 0xFF800001, 0x7FC00000, 1 << 31])).map(
        F32
    ),
    "f64": st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0x7FF4000000000001, 0xFFF0000000000001])).map(F64),
}
TYPES = list(VALUES)
# The fixtures `host` and `host_kind` live as long as the session: nothing to set up again for each example. 25 for each
# of four hosts, others in each run.
relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def permutations(draw):
    """(parameter types, for each result which parameter it is, arguments): results repeat and drop parameters."""
    params = draw(st.lists(st.sampled_from(TYPES), max_size=20))
    picks = draw(st.lists(st.integers(0, len(params) - 1), max_size=20)) if params else []
    return params, picks, [draw(VALUES[name]) for name in params]


def signature(params, results):
    """A function's type in the text format."""
    return f"(param {' '.join(params)}) (result {' '.join(results)})"


@relaxed
@given(call=permutations())
def test_every_bit_comes_back(host, call):
    """Up to 20 parameters and results in any order, straight through, one by one and in a batch."""
    params, picks, args = call
    body = "".join(f"(local.get {pick})" for pick in picks)
    source = f'(module (func (export "f") {signature(params, [params[pick] for pick in picks])} {body}))'
    expected = [args[pick] for pick in picks]
    with host.instantiate(host.compile(source)) as instance:
        assert instance.call("f", args) == expected
        assert instance.call("f", tuple(args)) == expected
        assert instance.call_many("f", [args, args]) == [expected, expected]


@functools.cache
def plain_engine():
    return wasmtime.Engine()


def bits_of(raw):
    """Hexadecimal digits of every value's bits: so that NaNs are compared, and told, bit for bit."""
    return [(type(value).__name__, f"{value.value if isinstance(value, I32 | I64) else value.bits:x}") for value in raw]


def plainly(source, ints):
    """What plain wasmtime answers, called with integers alone."""
    store = wasmtime.Store(plain_engine())
    function = wasmtime.Instance(store, wasmtime.Module(plain_engine(), source), []).exports(store)["f"]
    answer = function(store, *ints)
    return [] if answer is None else answer if isinstance(answer, list) else [answer]


#: A float type's integer of the same width, and how the one becomes the other.
AS_INTEGER = {"f32": ("i32", "f32.reinterpret_i32", "i32.reinterpret_f32")}
AS_INTEGER["f64"] = ("i64", "f64.reinterpret_i64", "i64.reinterpret_f64")


def as_integer(value):
    """The signed integer with the same bits."""
    if isinstance(value, I32 | I64):
        return value.value
    width = 32 if isinstance(value, F32) else 64
    return value.bits - (value.bits >> (width - 1) << width)


@relaxed
@given(call=permutations())
def test_the_bits_are_plain_wasmtimes(host, call):
    """The same function in wasmtime's own Python binding, with integers in place of floats lest Python look at them,
    answers the same bits: on the first call, on warm ones, and in a batch of several messages."""
    params, picks, args = call
    results = [params[pick] for pick in picks]
    source = f"""(module (func (export "f") {signature(params, results)}
      {"".join(f"(local.get {pick})" for pick in picks)}))"""
    gets = "".join(
        f"({AS_INTEGER[name][1]} (local.get {i}))" if name in AS_INTEGER else f"(local.get {i})"
        for i, name in enumerate(params)
    )
    # Results come off the stack last first; each is kept as an integer.
    takes = "".join(
        f"(local.set $r{i} ({AS_INTEGER[name][2]}))" if name in AS_INTEGER else f"(local.set $r{i})"
        for i, name in reversed(list(enumerate(results)))
    )
    ints = [AS_INTEGER.get(name, (name,))[0] for name in results]
    wrapped = f"""(module
      (func $f {signature(params, results)} {"".join(f"(local.get {pick})" for pick in picks)})
      (func (export "f") {signature([AS_INTEGER.get(name, (name,))[0] for name in params], ints)}
        {"".join(f"(local $r{i} {name})" for i, name in enumerate(ints))}
        {gets} (call $f) {takes} {"".join(f"(local.get $r{i})" for i in range(len(ints)))}))"""
    expected = plainly(wrapped, [as_integer(value) for value in args])
    with host.instantiate(host.compile(source)) as instance:
        for _ in range(4):
            answer = instance.call("f", args)
            assert [as_integer(value) for value in answer] == expected
            assert bits_of(answer) == bits_of([args[pick] for pick in picks])


PLAIN = {
    "i32": st.one_of(st.integers(-(2**31), 2**31 - 1), st.booleans()),
    "i64": st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9)),
    "f32": st.one_of(st.floats(width=32), st.integers(-(2**24), 2**24)),
    "f64": st.one_of(st.floats(), st.integers(-(2**53), 2**53)),
}
MAKE = {"i32": I32, "i64": I64, "f32": F32.from_float, "f64": F64.from_float}


def same_number(one, other):
    """Equal, with the sign of a zero; or both no number."""
    if one != one or other != other:
        return one != one and other != other
    return one == other and type(one) is type(other) and math.copysign(1, one) == math.copysign(1, other)


@relaxed
@given(data=st.data())
def test_every_way_to_call_agrees(host, data):
    """`call` with `WasmVal`s, with plain numbers and with both, in lists and tuples, `func`, and `call_many`, on first
    calls and on warm ones, each with values of its own: all answer what was put in."""
    params = data.draw(st.lists(st.sampled_from(TYPES), max_size=20))
    picks = data.draw(st.lists(st.integers(0, len(params) - 1), max_size=20)) if params else []
    rows = data.draw(st.lists(st.tuples(*[PLAIN[name] for name in params]), min_size=3, max_size=3))
    body = "".join(f"(local.get {pick})" for pick in picks)
    source = f"""(module
      (func (export "f") {signature(params, [params[pick] for pick in picks])} {body})
      (func (export "g") {signature(params, [params[pick] for pick in picks])} {body}))"""
    with host.instantiate(host.compile(source)) as instance:
        for name in ("f", "f", "g", "f"):
            function = instance.func(name)
            for row in rows:
                values = [MAKE[type_](number) for type_, number in zip(params, row, strict=True)]
                mixed = [value if i % 2 else number for i, (value, number) in enumerate(zip(values, row, strict=True))]
                wanted = [values[pick] for pick in picks]
                for args in (values, tuple(values), list(row), row, mixed, tuple(mixed)):
                    assert same_values(instance.call(name, args), wanted)
                answer = function(*row)
                plain = () if answer is None else answer if isinstance(answer, tuple) else (answer,)
                numbers = [value.value if isinstance(value, I32 | I64) else value.to_float() for value in wanted]
                assert len(plain) == len(numbers)
                assert all(map(same_number, plain, numbers))
        wanted_rows = [[MAKE[params[pick]](row[pick]) for pick in picks] for row in rows]
        for batch in (rows, [list(row) for row in rows]):
            for answers, wanted in zip(instance.call_many("f", batch), wanted_rows, strict=True):
                assert same_values(answers, wanted)


def same_values(answer, wanted):
    """Bit for bit, but for NaNs, of which Python's floats keep what the machine makes of them."""
    return len(answer) == len(wanted) and all(
        type(one) is type(other)
        and (one == other or (isinstance(one, F32 | F64) and same_number(one.to_float(), other.to_float())))
        for one, other in zip(answer, wanted, strict=True)
    )


@relaxed
@given(call=permutations(), count=st.integers(2, 60))
def test_a_batch_of_several_messages(narrow, call, count):
    """Rows that do not fit into one message come back in order, bit for bit, with what is different in each."""
    params, picks, args = call
    source = f"""(module (global $n (mut i32) (i32.const 0))
      (func (export "f") {signature(params, [*[params[pick] for pick in picks], "i32"])}
        {"".join(f"(local.get {pick})" for pick in picks)}
        (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"""
    expected = [args[pick] for pick in picks]
    with narrow.instantiate(narrow.compile(source)) as instance:
        for batch in range(2):
            answers = instance.call_many("f", [args] * count)
            assert answers == [[*expected, I32(batch * count + row + 1)] for row in range(count)]


@pytest.fixture(scope="module")
def narrow(host, host_kind):
    """A host of the same kind whose messages hold a dozen rows of 20 values."""
    limits = Limits(message_bytes=4096)
    with WasmtimeHost(limits=limits) if host_kind == "wasmtime" else Supervisor(limits=limits, spares=0) as made:
        made.instantiate(made.compile('(module (func (export "warm")))')).close()
        yield made


@relaxed
@given(call=permutations())
def test_every_integer_and_every_number_goes_through_a_host_function(host, call):
    """What a callback gets is the plain value of each argument; what it answers as values arrives bit for bit."""
    params, picks, args = call
    results = [params[pick] for pick in picks]
    expected = [args[pick] for pick in picks]
    seen = []

    def callback(caller, *given_args):
        seen.append(given_args)
        return expected[0] if len(expected) == 1 else (tuple(expected) or None)

    gets = "".join(f"(local.get {i})" for i in range(len(params)))
    source = f"""(module (import "env" "f" (func $f {signature(params, results)}))
      (func (export "f") {signature(params, results)} (call $f {gets})))"""
    imports = WasmImports(functions={("env", "f"): HostFunction(callback, params, results)})
    with host.instantiate(host.compile(source), imports) as instance:
        assert instance.call("f", args) == expected
    assert len(seen) == 1
    for got, arg in zip(seen[0], args, strict=True):
        if isinstance(arg, I32 | I64):
            assert got == arg.value
        else:
            assert type(arg).from_float(got).to_float() == arg.to_float() or arg.to_float() != arg.to_float()


OPERATORS = {
    "i32": ["add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl"],
    "i64": ["add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl"],
    "f32": ["add", "sub", "mul", "div", "copysign"],
    "f64": ["add", "sub", "mul", "div", "copysign"],
}
NUMBERS = {
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
}


@st.composite
def computations(draw):
    """(type, operators, numbers): a fold of the numbers by the operators."""
    name = draw(st.sampled_from(TYPES))
    operators = draw(st.lists(st.sampled_from(OPERATORS[name]), min_size=1, max_size=8))
    return name, operators, [draw(NUMBERS[name]) for _ in range(len(operators) + 1)]


@relaxed
@given(computation=computations())
def test_arithmetic_is_plain_wasmtimes(host, computation):
    """The same computation through wasmtime's own Python binding has the same result."""
    name, operators, numbers = computation
    body = "(local.get 0)"
    for index, operator in enumerate(operators, 1):
        body = f"({name}.{operator} {body} (local.get {index}))"
    # As an integer of the same width, so that a NaN is compared by its bits.
    answer = {"f32": ("i32", "i32.reinterpret_f32"), "f64": ("i64", "i64.reinterpret_f64")}.get(name)
    result, body = (answer[0], f"({answer[1]} {body})") if answer else (name, body)
    source = f'(module (func (export "f") {signature([name] * len(numbers), [result])} {body}))'
    store = wasmtime.Store(plain_engine())
    plain = wasmtime.Instance(store, wasmtime.Module(plain_engine(), source), []).exports(store)["f"]
    with host.instantiate(host.compile(source)) as instance:
        assert instance.func("f")(*numbers) == plain(store, *numbers)


@pytest.mark.parametrize("count", [1, 20, 100])
def test_a_long_signature_is_kept_in_order(instantiate, count):
    """Alternating types, each value telling its place."""
    params = [TYPES[i % 4] for i in range(count)]
    makers = {"i32": I32, "i64": I64, "f32": F32, "f64": F64}
    args = [makers[name](i + 1) for i, name in enumerate(params)]
    body = "".join(f"(local.get {i})" for i in reversed(range(count)))
    instance = instantiate(f'(module (func (export "f") {signature(params, params[::-1])} {body}))')
    assert instance.call("f", args) == args[::-1]


@pytest.mark.parametrize("count", [61, 62, 63, 500, 1000])
def test_more_integers_than_a_short_request_holds(instantiate, count):
    """On both sides of the kilobyte that a request is made in, first and warm, however they are given; wrong ones are
    refused as ever."""
    params, args = ["i64"] * count, [2**62 - i for i in range(count)]
    source = f"""(module
      (func (export "f") {signature(params, ["i64", "i64"])} (local.get 0) (local.get {count - 1}))
      (func (export "short") (param i32) (result i32) (local.get 0)))"""
    instance = instantiate(source)
    expected = [I64(args[0]), I64(args[-1])]
    for _ in range(3):
        assert instance.call("f", args) == expected
        assert instance.call("f", [I64(arg) for arg in args]) == expected
        assert instance.func("f")(*args) == (args[0], args[-1])
        assert instance.call_many("f", [args] * 2) == [expected] * 2
        for wrong in (args[:-1], [*args, 1], [*args[:-1], 2**63], [*args[:-1], "1"]):
            with pytest.raises(CallError) as caught:
                instance.call("f", wrong)
            assert caught.value.cause is Cause.USAGE
        assert instance.call("short", [5]) == [I32(5)]
