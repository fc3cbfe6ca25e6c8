"""Random sequences of everything that touches guest memory: it is an array of bytes that grows, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reaching import EVERY_WAY, PAGE

from pdsandbox import HostFunction, MemoryAccessError, Trap, WasmImports

pytestmark = EVERY_WAY

# What matters is where something begins and ends beside pages and the end of memory.
MOST = 6
places = st.one_of(
    st.integers(0, 200),
    st.builds(lambda page, by: max(0, page * PAGE + by), st.integers(0, MOST + 1), st.integers(-9, 9)),
    st.integers(0, (MOST + 1) * PAGE),
)
lengths = st.one_of(st.integers(0, 20), st.sampled_from([PAGE - 1, PAGE, PAGE + 1]), st.integers(0, 2 * PAGE))
data = st.builds(lambda seed, n: (bytes(seed) * (1 + n // len(seed)))[:n], st.binary(min_size=1, max_size=7), lengths)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), places, lengths),
        st.tuples(st.just("read_into"), places, lengths),
        st.tuples(st.just("write"), places, data),
        st.tuples(st.just("grow"), st.integers(0, 2)),
        st.tuples(st.just("grow_many"), st.lists(st.integers(0, 1), max_size=3)),
        st.tuples(st.just("grow_and_trap"), st.integers(0, 1)),
        st.tuples(st.just("store"), places, st.integers(0, 255)),
        st.tuples(st.just("host"), st.integers(0, 1), st.lists(st.tuples(places, data), max_size=3)),
    ),
    max_size=25,
)
GUEST = """(module
  (import "m" "host" (func $host (param i32)))
  (memory (export "{name}") {kind} 1 6)
  (func $grow (export "grow") (param i32) (result i32) {grow})
  (func (export "grow_and_trap") (param i32) (drop (call $grow (local.get 0))) (unreachable))
  (func (export "store") (param {address} i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "host") (param i32) (drop (call $grow (local.get 0))) (call $host (local.get 0))))"""
GROW = {
    "": "(memory.grow (local.get 0))",
    "i64": "(i32.wrap_i64 (memory.grow (i64.extend_i32_u (local.get 0))))",
}


class Model:
    """What guest memory is."""

    def __init__(self):
        self.bytes = bytearray(PAGE)

    def read(self, at, length):
        return bytes(self.bytes[at : at + length]) if at + length <= len(self.bytes) else None

    def write(self, at, new):
        if at + len(new) > len(self.bytes):
            return False
        self.bytes[at : at + len(new)] = new
        return True

    def grow(self, pages):
        before = len(self.bytes) // PAGE
        if before + pages > MOST:
            return -1
        self.bytes += bytes(pages * PAGE)
        return before


def attempt(use):
    """What `use` returns; None for what lies outside."""
    try:
        return use()
    except MemoryAccessError:
        return None


def check_read(memory, model, at, length):
    """Reading gives what the model has."""
    assert attempt(lambda: memory.memory_read(at, length)) == model.read(at, length)


def check_read_into(instance, model, at, length):
    """So does filling a buffer; outside it stays as it was."""
    buffer = bytearray(b"?" * length)
    told = attempt(lambda: instance.memory_read_into(at, buffer))
    expected = model.read(at, length)
    assert (told, bytes(buffer)) == ((length, expected) if expected is not None else (None, b"?" * length))


def check_write(memory, model, at, new):
    """Writing is told as the model would."""
    assert (attempt(lambda: memory.memory_write(at, new) or True) is True) is model.write(at, new)


class Run:
    """One instance beside its model."""

    def __init__(self):
        self.model = Model()
        self.errands = []

    def host(self, caller, _value):
        """What the guest calls: reads and writes in the middle of a call."""
        for at, new in self.errands:
            check_write(caller, self.model, at, new)
            check_read(caller, self.model, at, len(new))

    def step(self, instance, what, *args):
        """Do the same to both."""
        model = self.model
        if what == "read":
            check_read(instance, model, *args)
        elif what == "read_into":
            check_read_into(instance, model, *args)
        elif what == "write":
            check_write(instance, model, *args)
        elif what == "grow":
            assert instance.func("grow")(*args) == model.grow(*args)
        elif what == "grow_many":
            got = [row[0].value for row in instance.call_many("grow", [[pages] for pages in args[0]])]
            assert got == [model.grow(pages) for pages in args[0]]
        elif what == "grow_and_trap":
            model.grow(*args)
            with pytest.raises(Trap):
                instance.call("grow_and_trap", args)
        elif what == "store":
            at, value = args
            if model.write(at, bytes([value])):
                instance.call("store", [at, value])
            else:
                with pytest.raises(Trap):
                    instance.call("store", [at, value])
        else:
            pages, self.errands = args
            model.grow(pages)
            instance.call("host", [pages])


# The fixture that keeps the kernel from copying does so for all examples. Forty for each of six ways to reach memory,
# others in each run.
relaxed = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@relaxed
@given(name=st.sampled_from(["memory", "m"]), kind=st.sampled_from(list(GROW)), steps=steps)
def test_memory_is_an_array_of_bytes(host, name, kind, steps):
    """After every step what is read is what the model holds, and so is the end."""
    run = Run()
    source = GUEST.format(name=name, kind=kind, grow=GROW[kind], address=kind or "i32")
    imports = WasmImports(functions={("m", "host"): HostFunction(run.host, ("i32",))})
    with host.instantiate(host.compile(source), imports) as instance:
        for step in steps:
            run.step(instance, *step)
        end = len(run.model.bytes)
        assert instance.memory_read(0, end) == run.model.bytes
        assert attempt(lambda: instance.memory_read(0, end + 1)) is None
