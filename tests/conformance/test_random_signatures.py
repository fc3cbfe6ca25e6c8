"""Random signatures and random bits: what a host answers is what was put in, and what plain wasmtime answers."""

from __future__ import annotations

import functools

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdsandbox import F32, F64, I32, I64, HostFunction, WasmImports

VALUES = {
    "i32": st.integers(-(2**31), 2**31 - 1).map(I32),
    "i64": st.integers(-(2**63), 2**63 - 1).map(I64),
    "f32": st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0x7FA00001, 0xFF800001, 0x7FC00000, 1 << 31])).map(
        F32
    ),
    "f64": st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0x7FF4000000000001, 0xFFF0000000000001])).map(F64),
}
TYPES = list(VALUES)
# The fixtures `host` and `host_kind` live as long as the session: nothing to set up again for each example.
relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


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


@functools.cache
def plain_engine():
    return wasmtime.Engine()


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
