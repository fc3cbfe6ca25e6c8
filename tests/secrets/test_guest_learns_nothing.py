"""What a guest can find out about where it runs: nothing that is not the same everywhere."""

from __future__ import annotations

import pytest

from pdsandbox import (
    CompileError,
    HostFunction,
    InstantiationError,
    Limits,
    Supervisor,
    Trap,
    WasmImports,
    WasmtimeHost,
)

PAGE = 65536
#: Of `collects_everything`: what was there before it wrote anything, by the places where it notes it.
NOTHING = {
    0: "fresh memory",
    16: "grown memory",
    40: "tables",
    48: "unset locals",
    56: "the time",
    64: "a stub's answer",
}
ANSWER = (-1, 2**62 + 1, 1.5, -0.25)


def answers():
    """What `collects_everything` imports: one function that answers, and the stubs."""
    answer = HostFunction(lambda _caller: ANSWER, results=("i32", "i64", "f32", "f64"))
    return WasmImports(functions={("env", "answers"): answer})


def collected(host, source):
    """All that it could collect: its memory, and how deep it could call itself."""
    with host.instantiate(host.compile(source), answers()) as instance:
        instance.call("collect")
        with pytest.raises(Trap, match="stack"):
            instance.call("deeper")
        return instance.memory_read(0, 4 * PAGE), instance.func("depth")()


def test_the_same_everywhere(wat, monkeypatch, tmp_path):
    """All that a guest can collect is the same in two workers, in those of another supervisor (other addresses, hash
    seed, environment, directory), and in this process: so nothing of these is in it."""
    source = wat("collects_everything")
    limits = Limits(fuel=None, memory_bytes=1 << 20, table_elements=1000)
    with Supervisor(limits=limits, spares=0) as one:
        found = [collected(one, source), collected(one, source)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "of another environment")
    with Supervisor(limits=limits, spares=0, hardening="off") as another, WasmtimeHost(limits=limits) as here:
        found += [collected(another, source), collected(here, source)]
    assert found[1:] == found[:1] * 3


def test_what_nobody_wrote_is_zero(instantiate, wat):
    """Fresh and grown memory, tables, locals, what a stub answers: zero, null, zero, zero, as the guest sees them."""
    instance = instantiate(wat("collects_everything"), answers())
    assert instance.memory_read(0, 2 * PAGE) == bytes(2 * PAGE)
    instance.call("collect")
    for at, what in NOTHING.items():
        assert instance.memory_read(at, 4) == bytes(4), what
    assert instance.memory_read(2 * PAGE, 2 * PAGE) == bytes(2 * PAGE), "grown memory, as the host sees it"


def test_memory_that_another_guest_used_is_zero_again(instantiate):
    """A guest that fills its memory, ends, and one after it, many times: the next finds zeros."""
    fills = """(module (memory (export "memory") 16)
      (func (export "fill") (memory.fill (i32.const 0) (i32.const 0xA5) (i32.const 1048576))))"""
    for _ in range(8):
        instance = instantiate(fills)
        assert instance.memory_read(0, 16 * PAGE) == bytes(16 * PAGE)
        instance.call("fill")
        instance.close()


def test_a_not_a_number_is_the_same_each_time(instantiate, wat):
    """Payloads come from the operands alone, whatever ran before."""
    instance = instantiate(wat("collects_everything"), answers())
    instance.call("collect")
    first = instance.memory_read(256, 768)
    instance.memory_write(256, bytes(768))
    instance.call("collect")
    assert instance.memory_read(256, 768) == first
    assert first != bytes(768)


@pytest.mark.parametrize("bits", [0x7FF0000000000001, 0x7FF8000000000000, 0xFFF8123456789ABC, 0x7FF4000000000000])
def test_a_not_a_number_through_the_host_brings_nothing_along(instantiate, bits):
    """What comes back from a host function that returns its argument has the payload that was sent, quiet or not."""
    instance = instantiate(
        f"""(module (import "env" "same" (func $same (param f64) (result f64)))
          (func (export "run") (result i64)
            (i64.reinterpret_f64 (call $same (f64.reinterpret_i64 (i64.const {bits}))))))""",
        WasmImports(functions={("env", "same"): HostFunction(lambda _caller, x: x, ("f64",), ("f64",))}),
    )
    assert instance.func("run")() % 2**64 in (bits, bits | 1 << 51)


REFERENCES_AS_NUMBERS = {
    "a function's address": "(i64.store (i32.const 0) (ref.func $f))",
    "an external reference": "(i32.store (i32.const 0) (local.get 0))",
    "a table's element": "(drop (i32.add (table.get $t (i32.const 0)) (i32.const 1)))",
    "comparing functions": "(drop (ref.eq (ref.func $f) (ref.func $f)))",
    "comparing external references": "(drop (ref.eq (local.get 0) (local.get 0)))",
    "a number as a reference": "(call_ref $type (i64.const 4096))",
}


@pytest.mark.parametrize("attempt", REFERENCES_AS_NUMBERS.values(), ids=REFERENCES_AS_NUMBERS)
def test_a_reference_is_no_number(host, attempt):
    """What would show an address, or make one up, is not a valid module."""
    source = f"""(module (type $type (func)) (memory 1) (table $t 1 funcref) (func $f) (elem declare func $f)
      (func (export "run") (param externref) {attempt}))"""
    with pytest.raises(CompileError, match="type mismatch"):
        host.compile(source)


def test_a_guest_has_no_clock_of_its_own(host, instantiate):
    """No shared memory to count in or to wait on with a time-out, and no thread; the time is what the host tells."""
    with pytest.raises(InstantiationError, match="shared memory"):
        host.instantiate(host.compile("(module (memory 1 1 shared))"))
    waits = """(module (memory 1 1) (func (export "run") (result i32)
      (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 1000))))"""
    with pytest.raises(Trap):
        instantiate(waits).call("run")
    for module, name in (("wasi", "thread-spawn"), ("wasi_snapshot_preview1", "clock_time_get")):
        with pytest.raises(InstantiationError, match="missing import"):
            host.instantiate(host.compile(f'(module (import "{module}" "{name}" (func)))'))
