"""Guests do not notice the lock-down: each deed has the same outcome at default hardening, also with granted
directories, and with it off."""

from __future__ import annotations

import json

import pytest

from pdsandbox import (
    F32,
    F64,
    I32,
    CallError,
    Cause,
    CompileError,
    Dir,
    EngineConfig,
    HostFunction,
    InstantiationError,
    Limits,
    Supervisor,
    Trap,
    WallClockExceeded,
    Wasi,
    WasmImports,
    in_worker,
)

MIB = 1 << 20
BOTH = ("default", "off")
GRANTED = "default, with directories"
TRAPS = (
    "unreachable",
    "divide_by_zero",
    "remainder_by_zero",
    "integer_overflow",
    "bad_conversion",
    "load_out_of_bounds",
    "store_out_of_bounds",
    "fill_out_of_bounds",
    "table_out_of_bounds",
    "indirect_call_to_null",
    "indirect_call_mismatch",
    "null_reference",
    "array_out_of_bounds",
    "array_too_large",
    "cast_failure",
    "uncaught_exception",
    "stack_bomb",
)
MEMORY = """(module (memory (export "memory") 1)
  (data $d "passive")
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "store") (param i32 i64) (i64.store (local.get 0) (local.get 1)))
  (func (export "load") (param i32) (result i64) (i64.load (local.get 0)))
  (func (export "bulk") (result i64)
    (memory.fill (i32.const 64) (i32.const 0x5a) (i32.const 4096))
    (memory.copy (i32.const 8192) (i32.const 64) (i32.const 4096))
    (memory.init $d (i32.const 8192) (i32.const 0) (i32.const 7))
    (data.drop $d)
    (i64.load (i32.const 8192))))"""
TABLE = """(module (type $f (func (result i32))) (table $t 1 funcref) (elem declare func $seven)
  (func $seven (result i32) (i32.const 7))
  (func (export "run") (result i32 i32)
    (drop (table.grow $t (ref.null func) (i32.const 1000)))
    (table.fill $t (i32.const 1) (ref.func $seven) (i32.const 1000))
    (call_indirect $t (type $f) (i32.const 1000)) (table.size $t)))"""
FLOATS = """(module
  (func (export "simd") (param i32) (result i32)
    (i32x4.extract_lane 3 (i32x4.mul (i32x4.splat (local.get 0)) (v128.const i32x4 1 2 3 4))))
  (func (export "float") (param f32 f64) (result f32 f64)
    (f32.sqrt (local.get 0)) (f64.div (local.get 1) (f64.const 3)))
  (func (export "nan") (result f64) (f64.div (f64.const 0) (f64.const 0))))"""
HOSTS = """(module
  (import "m" "here" (func $here (param i32) (result i32)))
  (import "m" "there" (func $there (param i32) (result i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1) (data (i32.const 0) "ping")
  (func $both (param i32) (result i32) (call $here (call $there (local.get 0))))
  (func $begin (call $log (i32.const 3) (i32.const 0) (i32.const 4)) (drop (call $both (i32.const 0))))
  (start $begin)
  (func (export "both") (param i32) (result i32) (call $both (local.get 0)))
  (func (export "there") (param i32) (result i32) (call $there (local.get 0))))"""


class Granting:
    """A supervisor whose guests are all granted a directory to read and one to write."""

    def __init__(self, host, directory):
        self._host = host
        self._wasi = Wasi(dirs=(Dir(directory / "ro", "/ro"), Dir(directory / "rw", "/rw", "rw")))
        self.compile = host.compile

    def instantiate(self, module, imports=None):
        return self._host.instantiate(module, imports, wasi=self._wasi)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """One supervisor a level, by level. (Of a fixture with this name, what it keeps in its cache is not a leak.)"""
    limits = Limits(fuel=None, wall_s=60.0, memory_bytes=1024 * MIB)
    made = {level: Supervisor(hardening=level, limits=limits, spares=0) for level in BOTH}
    directory = tmp_path_factory.mktemp("granted")
    for name in ("ro", "rw"):
        (directory / name).mkdir()
    for host in made.values():
        host.instantiate(host.compile("(module)")).close()
    yield {**made, GRANTED: Granting(made["default"], directory)}
    for host in made.values():
        host.close()


@pytest.fixture
def alike(host):
    """alike(deed): what `deed(host)` returns, which must be the same on all."""

    def run(deed):
        first, *others = (deed(host[level]) for level in (*BOTH, GRANTED))
        assert others == [first, first]
        return first

    return run


def new(host, source, imports=None):
    return host.instantiate(host.compile(source), imports)


def failure(act):
    """What an error is, as far as it may not differ."""
    try:
        act()
    except Exception as exc:
        return type(exc), exc.cause, str(exc), getattr(exc, "trap_code", None)
    return None


@pytest.mark.parametrize("guest", TRAPS)
def test_a_trap(alike, wat, guest):
    """The same code and sentence, time after time, and the guest goes on."""

    def deed(host):
        with new(host, wat(guest)) as instance:
            found = [failure(lambda: instance.call("run")) for _ in range(3)]
            assert instance.call("ok") == [I32(42)]
        return found

    assert {kind for kind, *_ in alike(deed)} == {Trap}


def test_growing_memory(alike):
    """Up to its limit, and -1 beyond; what was there stays."""

    def deed(host):
        with new(host, MEMORY) as instance:
            instance.func("store")(0, 5)
            grown = [instance.func("grow")(pages) for pages in (1, 1000, 15000, 1000)]
            instance.func("store")(1000 * 65536, 6)
            instance.memory_write(1001 * 65536, b"far")
            return grown, instance.func("load")(0), instance.func("load")(65536000), instance.memory_read(65601536, 3)

    assert alike(deed) == ([1, 2, 1002, -1], 5, 6, b"far")


def test_a_gibibyte_declared_and_touched_here_and_there(alike):
    """Memory that is not touched counts nowhere."""
    source = '(module (memory (export "memory") 16384) (func (export "n") (result i32) (memory.size)))'

    def deed(host):
        with new(host, source) as instance:
            for at in range(0, 1024 * MIB, 16 * MIB):
                instance.memory_write(at, b"x")
            return instance.func("n")(), instance.memory_read(1024 * MIB - 1, 1), instance.memory_read(16 * MIB, 2)

    assert alike(deed) == (16384, b"\0", b"x\0")


def test_bulk_memory(alike):
    """Fill, copy, init and drop."""

    def deed(host):
        with new(host, MEMORY) as instance:
            return instance.func("bulk")().to_bytes(8, "little"), failure(lambda: instance.call("bulk"))

    data, again = alike(deed)
    assert data == b"passiveZ"
    assert again[0] is Trap


def test_tables(alike):
    """Grow, fill, and calls through them."""
    assert alike(lambda host: new(host, TABLE).func("run")()) == (7, 1001)


def test_floats_and_vectors(alike):
    """Bit for bit."""

    def deed(host):
        with new(host, FLOATS) as instance:
            return (
                instance.call("simd", [5]),
                instance.call("float", [F32.from_float(2.0), 1.0]),
                instance.call("nan"),
            )

    assert alike(deed)[:2] == ([I32(20)], [F32(0x3FB504F3), F64.from_float(1 / 3)])


def test_batches(alike):
    """Thousands of calls in one, and the row that traps."""
    source = """(module (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1))))"""

    def deed(host):
        with new(host, source) as instance:
            good = instance.call_many("div", [[n, 7] for n in range(5000)])
            return good, failure(lambda: instance.call_many("div", [[1, 1], [1, 0]]))

    good, bad = alike(deed)
    assert good[4999] == [I32(714)]
    assert bad[0] is Trap


def test_host_functions_both_ways(alike):
    """In the supervisor and in the worker, while instantiating and in calls, with the guest's memory."""

    def deed(host):
        log = []

        def here(caller, value):
            caller.memory_write(8, caller.memory_read(0, 4))
            return value + 1

        def there(caller, value):
            # A module that it refers to by a global name was imported before the worker was locked down.
            data = json.dumps({"n": value, "data": caller.memory_read(8, 4).decode()}).encode()
            caller.memory_write(16, data)
            return value * 2

        functions = {
            ("m", "here"): HostFunction(here, ("i32",), ("i32",)),
            ("m", "there"): HostFunction(in_worker(there), ("i32",), ("i32",)),
        }
        imports = WasmImports(pd_log=lambda level, message: log.append((level, message)), functions=functions)
        with new(host, HOSTS, imports) as instance:
            return instance.func("both")(20), instance.memory_read(8, 33), log

    answer, memory, log = alike(deed)
    assert (answer, log) == (41, [(3, b"ping")])
    assert memory == b'ping\0\0\0\0{"n": 20, "data": "ping"}'


def test_a_function_in_the_worker_that_needs_much_memory(alike):
    """Large blocks grow as ever: where they may not be moved, they are copied."""

    def there(_caller, value):
        data = bytearray()
        while len(data) < value << 20:
            data += bytes(65536)
        return len(data) >> 20

    offered = {
        ("m", "here"): HostFunction(in_worker(lambda _caller, value: value), ("i32",), ("i32",)),
        ("m", "there"): HostFunction(in_worker(there), ("i32",), ("i32",)),
    }

    def deed(host):
        with new(host, HOSTS, WasmImports(functions=offered)) as instance:
            return instance.func("there")(64)

    assert alike(deed) == 64


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("(module (func $s (unreachable)) (start $s))", InstantiationError),
        ("(module (func $s (call $s)) (start $s))", InstantiationError),
        ('(module (memory 1) (data (i32.const 65536) "x"))', InstantiationError),
        ("(module (memory 1) (func $s (i32.store (i32.const 0) (i32.const 1))) (start $s))", None),
    ],
    ids=["that traps", "that recurses", "a segment out of bounds", "that works"],
)
def test_start_functions(alike, source, kind):
    """They run in the locked worker, too."""
    found = alike(lambda host: failure(lambda: new(host, source).close()))
    assert (found and found[0]) is kind


def test_compile_errors(alike):
    """A locked compiler says the same about what it cannot compile."""

    def deed(host):
        return [
            failure(lambda: host.compile("(module (func (result i32)))")),
            failure(lambda: host.compile("(module")),
            failure(lambda: host.compile(b"\0asm\1\0\0\0\1")),
        ]

    assert {kind for kind, *_ in alike(deed)} == {CompileError}


@pytest.mark.parametrize("level", [*BOTH, GRANTED])
@pytest.mark.parametrize("spares", [0, 1])
@pytest.mark.usefixtures("patience")
def test_an_interruptible_guest(level, spares, tmp_path):
    """The thread that hears of interrupts is under the filter, too, and does its work; so does a worker that waited."""
    limits = Limits(fuel=None, wall_s=60.0)
    source = """(module (func (export "ok") (result i32) (i32.const 42)) (func (export "spin") (loop $l (br $l))))"""
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    hardening = level.split(",")[0]
    with Supervisor(hardening=hardening, limits=limits, engine=EngineConfig(interruptible=True), spares=spares) as host:
        for _ in range(2):
            with new(Granting(host, tmp_path) if level == GRANTED else host, source) as instance:
                with pytest.raises(WallClockExceeded):
                    instance.call("spin", wall_s=0.05)
                assert instance.alive
                assert instance.call("ok") == [I32(42)]


def test_an_import_in_the_body_of_a_function_in_the_worker(host):
    """Its files can no longer be read: the call fails and says why, and the instance stays usable. Off, it works."""

    def there(_caller, value):
        if value:
            import wave  # nothing else has imported it

            return wave.WAVE_FORMAT_PCM
        return 0

    offered = {
        ("m", "here"): HostFunction(in_worker(lambda _caller, value: value), ("i32",), ("i32",)),
        ("m", "there"): HostFunction(in_worker(there), ("i32",), ("i32",)),
    }
    with new(host["off"], HOSTS, WasmImports(functions=offered)) as instance:
        assert instance.func("there")(1) == 1
    with new(host["default"], HOSTS, WasmImports(functions=offered)) as instance:
        with pytest.raises(CallError) as caught:
            instance.func("there")(1)
        assert caught.value.cause is Cause.HOST_FUNCTION
        assert "No module named 'wave'" in str(caught.value.__cause__)
        assert instance.func("there")(0) == 0
