"""Who may import whom: contract <- protocol <- supervisor | worker | forkserver; runtime <- worker, forkserver."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pdsandbox

SRC = Path(pdsandbox.__file__).parent
ROOMS = {"aio", "protocol", "supervisor", "forkserver", "worker", "runtime", "platform", "cli"}

# What each room may import of ours, besides itself. "contract" is every module at the top of the package.
MAY = {
    "contract": set(),
    "platform": {"contract"},
    "protocol": {"contract"},
    "runtime": {"contract", "platform"},
    "supervisor": {"contract", "protocol", "platform"},
    "aio": {"contract", "protocol", "platform", "supervisor"},
    "worker": {"contract", "protocol", "platform", "runtime"},
    "forkserver": {"contract", "protocol", "platform", "runtime", "worker"},
    "cli": {"contract", "supervisor", "runtime"},
}
# The doors: modules at the top of the package that open rooms when they are used, and belong to none.
DOORS = {"__init__", "__main__"}
# The library's file is in a directory that is named after the system and the machine.
NAMES_A_SYSTEM = {"locate.py"}


def modules():
    """(path relative to the package, its room, its syntax tree) of every module."""
    for path in sorted(SRC.rglob("*.py")):
        relative = path.relative_to(SRC)
        room = relative.parts[0] if len(relative.parts) > 1 else "contract"
        yield relative, room, ast.parse(path.read_text(encoding="utf-8"), str(relative))


def imported(relative, tree):
    """Absolute names of all that a module imports, anywhere in it, `if TYPE_CHECKING` included."""
    package = ["pdsandbox", *relative.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room of one of our modules."""
    part = name.split(".")[1] if "." in name else ""
    return part if part in ROOMS else "contract"


@functools.cache
def all_modules():
    """What `modules` gives, read and parsed once."""
    return list(modules())


def findings(look):
    """What `look(relative, room, tree)` finds, by module; those in which it finds nothing are left out."""
    found = {str(relative): look(relative, room, tree) for relative, room, tree in all_modules()}
    return {module: what for module, what in found.items() if what}


def test_the_walk_sees_the_package():
    """All rooms of the design are there, and no other."""
    assert {room for _, room, _ in all_modules()} == ROOMS | {"contract"}


def test_imports_point_one_way():
    """A module imports only from rooms below its own."""

    def from_elsewhere(relative, room, tree):
        if room == "contract" and relative.stem in DOORS:
            return None
        ours = {name for name in imported(relative, tree) if name.split(".")[0] == "pdsandbox"}
        return {name for name in ours if room_of(name) not in MAY[room] | {room}}

    assert findings(from_elsewhere) == {}


def test_only_the_runtime_loads_wasmtime():
    """Nobody else imports the package or opens a shared library that is not the C library itself."""

    def loads(relative, room, tree):
        if room == "runtime":
            return None
        packages = {name for name in imported(relative, tree) if name.split(".")[0] == "wasmtime"}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return packages | {ast.unparse(call) for call in calls if _opens_library(call)}

    assert findings(loads) == {}


def _opens_library(call):
    """A ctypes loader given anything but None, which is the program itself."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in ("CDLL", "PyDLL", "LoadLibrary", "dlopen", "WinDLL"):
        return False
    return not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value is None)


def test_only_one_room_asks_which_system_it_is_on():
    """`sys.platform`, `os.name`, `os.uname` and the module `platform` are for pdsandbox.platform."""

    def asked(relative, room, tree):
        if room == "platform" or str(relative) in NAMES_A_SYSTEM:
            return None
        names = imported(relative, tree)
        found = {name for name in names if name.split(".")[0] == "platform" or name == "sys.platform"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found |= {ast.unparse(node)} & {"sys.platform", "os.name", "os.uname"}
        return found

    assert findings(asked) == {}


def test_only_the_worker_unpickles():
    """Nothing that a worker sends is ever unpickled; what the supervisor sends is, there (and in-process)."""

    def unpickles(relative, room, tree):
        names = imported(relative, tree)
        found = {name for name in names if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill")}
        if room not in ("worker", "runtime"):
            calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            found |= {call for call in calls if call.endswith((".loads", ".load")) and "pickle" in call}
        return found

    assert findings(unpickles) == {}


def test_the_protocol_does_no_io():
    """The wire protocol is pure: no clock, no descriptors, no threads, no processes."""
    impure = {
        "os",
        "io",
        "socket",
        "select",
        "time",
        "threading",
        "subprocess",
        "multiprocessing",
        "ctypes",
        "mmap",
        "signal",
    }

    def does_io(relative, room, tree):
        return {name.split(".")[0] for name in imported(relative, tree)} & impure if room == "protocol" else None

    assert findings(does_io) == {}


def test_every_module_says_what_it_is_for():
    """A module opens with a paragraph."""
    assert findings(lambda _relative, _room, tree: not (ast.get_docstring(tree) or "").strip()) == {}


REAL_USE = """if True:
    import sys
    from pdsandbox import HostFunction, I32, Supervisor, Trap, WasmImports
    source = '''(module (import "env" "f" (func $f (param i32) (result i32))) (memory (export "memory") 1)
      (func (export "run") (param i32) (result i32) (call $f (local.get 0)))
      (func (export "trap") unreachable))'''
    imports = WasmImports(functions={("env", "f"): HostFunction(lambda caller, x: x + 1, ("i32",), ("i32",))})
    with Supervisor() as host:
        module = host.compile(source)
        assert module.exports() == ["memory", "run", "trap"]
        with host.instantiate(module, imports) as instance:
            assert instance.call("run", [1]) == [I32(2)]
            instance.memory_write(0, b"x")
            try:
                instance.call("trap", [])
            except Trap:
                pass
            assert instance.call_many("run", [[1], [2]]) == [[I32(2)], [I32(3)]]
    print(*sys.modules)
"""


def test_the_supervisor_never_imports_what_runs_strangers_code():
    """After compiling, instantiating, calling and closing: no wasmtime, no runtime, no worker in its process."""
    script = f"import sys; sys.path.insert(0, {str(SRC.parent)!r})\n{REAL_USE}"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    names = done.stdout.split()
    assert "pdsandbox.supervisor.host" in names
    never = ("wasmtime", "pdsandbox.runtime", "pdsandbox.worker", "cloudpickle")
    assert [name for name in names if name.startswith(never)] == []
    assert "pdsandbox.wasi" not in names  # nobody asked for it
