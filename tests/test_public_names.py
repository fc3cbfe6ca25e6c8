"""The public names: exactly these, typed as they run, and each loaded only when it is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pdsandbox

NAMES = """
    AsyncInstance AsyncPlugin AsyncPool AsyncSupervisor CallError Caller Capability Cause Clock CompileError Dir
    EngineConfig Event ExportType F32 F64 Frame FuelExhausted FuncType GlobalType GuestExit Hardening HardeningReport
    HostFunction
    HostStats I32 I64 ImportType InstantiationError Layer LayerReport Limits MemoryAccessError MemoryType Output
    Plugin Pool PoolFull PoolTimeout Quarantined Receipt RestartPolicy RssExceeded RunResult Standing State
    Supervisor TableType TagType Trap TrapCode WallClockExceeded Wasi WasmActor WasmError WasmHost WasmImports
    WasmInstance WasmModule WasmVal WasmtimeHost WorkerCrashed in_worker receipts
""".split()  # noqa: SIM905 - a list of 64 literals would be a page
INIT = Path(pdsandbox.__file__)


def test_import_star_gives_exactly_the_documented_names():
    """No more, no less."""
    namespace = {}
    exec("from pdsandbox import *", namespace)
    namespace.pop("__builtins__")
    assert sorted(namespace) == sorted(NAMES) == pdsandbox.__all__


def test_dir_lists_them():
    """Completion in a shell finds every name before it was used, once."""
    listed = dir(pdsandbox)
    assert set(NAMES) <= set(listed)
    assert len(set(listed)) == len(listed)
    assert "__version__" in listed


def test_the_type_checkers_block_is_the_same_list():
    """What `if TYPE_CHECKING` imports is `__all__`, each name re-exported as itself from the room it loads from."""
    tree = ast.parse(INIT.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    listed = []
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.level == 1
        for alias in statement.names:
            assert alias.asname == alias.name
            listed.append((alias.name, statement.module))
    assert sorted(name for name, _ in listed) == sorted(NAMES)
    assert dict(listed) == pdsandbox._HOME


@pytest.mark.parametrize("name", NAMES)
def test_every_name_loads(name):
    """And is the very object of its room."""
    value = getattr(pdsandbox, name)
    room = importlib.import_module(f"pdsandbox.{pdsandbox._HOME[name]}")
    assert value is getattr(room, name)
    assert name in getattr(room, "__all__", [name])


def test_an_unknown_name_is_an_attribute_error():
    """As for any module, and `from pdsandbox import` says so with an ImportError."""
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        _ = pdsandbox.Nope
    with pytest.raises(ImportError, match="Nope"):
        exec("from pdsandbox import Nope", {})


def test_public_classes_and_functions_have_docstrings():
    """Whoever asks `help()` is answered."""
    undocumented = [
        name
        for name in NAMES
        if name != "WasmVal" and not (getattr(getattr(pdsandbox, name), "__doc__", "") or "").strip()
    ]
    assert undocumented == []


def test_the_package_is_typed():
    """A type checker looks for this file."""
    assert (INIT.parent / "py.typed").is_file()


def modules_after(statement):
    """The modules that a clean interpreter has imported after this statement."""
    script = f"import sys; sys.path.insert(0, {str(INIT.parent.parent)!r}); {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import pdsandbox",
            "ctypes cloudpickle wasmtime psutil asyncio subprocess pdsandbox.errors pdsandbox.supervisor",
        ),
        (
            "from pdsandbox import Limits, I32, WasmImports, Trap",
            "ctypes cloudpickle wasmtime psutil asyncio subprocess",
        ),
        ("from pdsandbox import Supervisor", "wasmtime cloudpickle asyncio pdsandbox.runtime pdsandbox.worker"),
        ("from pdsandbox import WasmtimeHost", "cloudpickle asyncio pdsandbox.supervisor pdsandbox.worker"),
    ],
)
def test_importing_is_lazy(statement, absent):
    """A name brings its own room and nothing that it does not need."""
    assert modules_after(statement) & set(absent.split()) == set()
