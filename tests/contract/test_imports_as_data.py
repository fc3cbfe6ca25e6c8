"""`HostFunction`, `WasmImports` and `in_worker`: what is refused at once, who wins, what is shipped."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import threading

import pytest
import shipped

from pdsandbox import FuncType, HostFunction, WasmImports, in_worker
from pdsandbox.imports import InWorker


def nothing(caller):
    return None


def test_a_host_function_has_the_type_it_was_given():
    """Parameter and result types are kept, any iterable as a tuple; none are the default."""
    assert HostFunction(nothing).type == FuncType((), ())
    function = HostFunction(nothing, params=["i32", "i64"], results=iter(("f32", "f64")))
    assert function.type == FuncType(("i32", "i64"), ("f32", "f64"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        function.fn = print


@pytest.mark.parametrize("fn", [None, 1, "print", ("i32",)], ids=repr)
def test_a_host_function_needs_a_callable(fn):
    """What cannot be called is a TypeError at construction."""
    with pytest.raises(TypeError, match="HostFunction takes a function"):
        HostFunction(fn)


@pytest.mark.parametrize("field", ["params", "results"])
@pytest.mark.parametrize("types", ["i32", "", 5, None], ids=repr)
def test_types_must_be_a_sequence_of_names(field, types):
    """A bare string, which would be read letter by letter, is a TypeError that says what is wanted."""
    with pytest.raises(TypeError, match=rf"HostFunction.{field} takes a tuple"):
        HostFunction(nothing, **{field: types})


@pytest.mark.parametrize("field", ["params", "results"])
@pytest.mark.parametrize("name", ["v128", "funcref", "externref", "int", "I32", "", 32, None], ids=repr)
def test_only_the_four_number_types_cross(field, name):
    """Any other type name is a ValueError that lists the four."""
    with pytest.raises(ValueError, match=rf"HostFunction.{field}.*i32, i64, f32, f64"):
        HostFunction(nothing, **{field: ("i32", name)})


@pytest.mark.parametrize("name", ["pd_send", "pd_now_micros", "pd_log"])
def test_pd_callbacks_must_be_callable(name):
    """What cannot be called is a TypeError that names the argument."""
    with pytest.raises(TypeError, match=f"WasmImports.{name} takes a function"):
        WasmImports(**{name: 5})


@pytest.mark.parametrize("key", ["env.f", ("env",), ("env", "f", "g"), ("env", 1), (b"env", b"f"), None], ids=repr)
def test_function_keys_are_pairs_of_names(key):
    """Any other key is a TypeError that shows it."""
    with pytest.raises(TypeError, match=r"keys are \(module, name\)"):
        WasmImports(functions={key: HostFunction(nothing)})


@pytest.mark.parametrize("value", [nothing, None, "f"], ids=["function", "none", "name"])
def test_functions_must_be_host_functions(value):
    """A bare callable has no type, so it is a TypeError that names its key."""
    with pytest.raises(TypeError, match=r"\('env', 'f'\)\] must be a HostFunction"):
        WasmImports(functions={("env", "f"): value})


def test_imports_are_keyword_only():
    """Which callback is which is never a matter of order."""
    with pytest.raises(TypeError):
        WasmImports(nothing)


def test_the_functions_given_are_copied_and_read_only():
    """Changing the mapping afterwards changes nothing."""
    functions = {("env", "f"): HostFunction(nothing)}
    imports = WasmImports(functions=functions)
    functions.clear()
    assert list(imports.functions) == [("env", "f")]
    with pytest.raises(TypeError):
        imports.functions["env", "g"] = HostFunction(nothing)


PD = {
    "pd_send": FuncType(("i32", "i32", "i32", "i32"), ("i32",)),
    "pd_now_micros": FuncType((), ("i64",)),
    "pd_log": FuncType(("i32", "i32", "i32"), ()),
}


@pytest.mark.parametrize("module", ["env", "pd"])
@pytest.mark.parametrize("name", list(PD))
def test_pd_functions_are_always_offered(module, name):
    """Under both modules, with their documented types; as stubs unless a callback was given."""
    stub = WasmImports().offer(module, name)
    assert (stub.type, stub.fn, stub.pd) == (PD[name], None, name)
    given = WasmImports(**{name: nothing}).offer(module, name)
    assert (given.type, given.fn, given.pd) == (PD[name], nothing, name)


@pytest.mark.parametrize(("module", "name"), [("wasi_snapshot_preview1", "fd_write"), ("pd2", "pd_log"), ("env", "f")])
def test_nothing_else_is_offered_by_default(module, name):
    """An import that nobody answers is None: nothing is granted by default."""
    assert WasmImports().offer(module, name) is None


def test_functions_win_over_pd_functions_of_the_same_name():
    """A function for `env.pd_log` replaces it there, with its own type, and leaves `pd.pd_log` alone."""
    function = HostFunction(nothing, params=("i64",))
    imports = WasmImports(pd_log=nothing, functions={("env", "pd_log"): function})
    offer = imports.offer("env", "pd_log")
    assert (offer.type, offer.fn, offer.pd) == (FuncType(("i64",), ()), nothing, None)
    assert imports.offer("pd", "pd_log").pd == "pd_log"


def call_elsewhere(shipped_function: InWorker, *args: int) -> list[str]:
    """Results of two calls in a clean interpreter that cannot import any module of ours, as a worker unpickles."""
    script = """if True:
        import sys
        sys.path[:0] = sys.argv[1].split(":")
        import cloudpickle
        fn = cloudpickle.loads(bytes.fromhex(sys.stdin.read()))
        assert "shipped" not in sys.modules
        print(*(fn(None, *map(int, sys.argv[2:])) for _ in range(2)))
    """
    where = ":".join(path for path in sys.path if path.endswith("site-packages"))
    command = [sys.executable, "-ISc", script, where, *map(str, args)]
    done = subprocess.run(command, input=shipped_function.pickled.hex(), text=True, check=True, capture_output=True)
    return done.stdout.split()


OFFSET = 1000


def defined_in_the_test(caller, value):
    return value + OFFSET


@pytest.mark.parametrize(
    ("fn", "arg", "expected"),
    [
        (shipped.uses_module_globals, 5, ["16", "17"]),
        (shipped.uses_a_module, 17, ["4", "4"]),
        (shipped.make_closure(100), 5, ["115", "115"]),
        (shipped.Adder(7), 5, ["22", "22"]),
        (shipped.Adder(7).method, 5, ["22", "22"]),
        (functools.partial(shipped.Adder(7).method), 5, ["22", "22"]),
        (defined_in_the_test, 5, ["1005", "1005"]),
        (lambda caller, value: value + OFFSET, 5, ["1005", "1005"]),
        (lambda caller, value: abs(-value), 5, ["5", "5"]),
    ],
    ids=["globals", "module", "closure", "callable", "method", "partial", "test-module", "lambda", "builtin"],
)
def test_in_worker_ships_by_value(fn, arg, expected):
    """A function of an importable module runs where that module cannot be imported, with globals and closures."""
    shipped.STATE["calls"] = 0
    assert call_elsewhere(in_worker(fn), arg) == expected
    assert shipped.STATE["calls"] == 0


def test_in_worker_keeps_the_function_callable_and_its_name():
    """Calling the wrapper here calls the original; its repr names it."""
    wrapped = in_worker(defined_in_the_test)
    assert wrapped(None, 1) == 1001
    assert "defined_in_the_test" in repr(wrapped)
    assert HostFunction(wrapped, params=("i32",), results=("i32",)).fn is wrapped


def test_in_worker_refuses_what_cannot_be_pickled_at_once_by_name():
    """A closure over a lock is a TypeError that names the function, with the original chained."""
    lock = threading.Lock()

    def holds_a_lock(caller):
        return lock.locked()

    with pytest.raises(TypeError, match="holds_a_lock") as caught:
        in_worker(holds_a_lock)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("fn", [None, 5, "f"], ids=repr)
def test_in_worker_takes_functions_only(fn):
    """What cannot be called is a TypeError."""
    with pytest.raises(TypeError, match="in_worker takes a function"):
        in_worker(fn)


def test_in_worker_leaves_the_pickling_registry_as_it_was():
    """Also when pickling fails: the user's own use of cloudpickle is not changed."""
    import cloudpickle

    before = cloudpickle.list_registry_pickle_by_value()
    in_worker(defined_in_the_test)
    with pytest.raises(TypeError):
        in_worker(functools.partial(defined_in_the_test, threading.Lock()))
    assert cloudpickle.list_registry_pickle_by_value() == before
