"""cloudpickle in the fork server: imported once, for those who need it, and nothing of what lies beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import wrapper

import pdsandbox
from pdsandbox import I32, Cause, Dir, HostFunction, InstantiationError, Supervisor, Wasi, WasmImports, in_worker
from pdsandbox.supervisor import linking

PLAIN = '(module (func (export "run") (result i32) (i32.const 42)))'
SHIPPED = """(module (import "env" "callback" (func $callback (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "run") (param i32) (result i32) (call $callback (local.get 0))))"""

#: In the fork server and its forks: each search for cloudpickle is a line in LOG, with the process that makes it.
_LOGS = """
import os
class Log:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cloudpickle"):
            with open({log!r}, "a") as file:
                file.write(f"{{os.getpid()}} {{name}}\\n")
sys.meta_path.insert(0, Log())
"""

_UNIT = """
import json, os, sys
sys.path.append({src!r})
from pdsandbox.forkserver.unpickler import Unpickler
path, finders, register = sys.path[:], sys.meta_path[:], os.register_at_fork
unpickler = Unpickler()
for root in {roots!r}:
    unpickler.prepare(root)
restored = (sys.path, sys.meta_path, os.register_at_fork) == (path, finders, register)
package = sys.modules.get("cloudpickle")
def ran(*, after_fork):
    r, w = os.pipe()
    if os.fork() == 0:
        if after_fork:
            unpickler.after_fork()
        os.write(w, json.dumps(getattr(package, "RAN", [])).encode())
        os._exit(0)
    os.wait()
    os.close(w)
    with open(r) as file:
        return json.load(file)
found = [name for name in ("cloudpickle", "stranger", "threading") if name in sys.modules]
print(json.dumps([restored, getattr(package, "__file__", None), found, ran(after_fork=False), ran(after_fork=True)]))
"""


def loaded(*roots: Path) -> list[object]:
    """A process like the fork server prepares from `roots`: whether all is as it was, the package's file, which modules
    there are, and which of the package's hooks have run in a fork, and in one that calls `after_fork`."""
    src = str(Path(pdsandbox.__file__).parents[1])
    script = _UNIT.format(src=src, roots=[str(root) for root in roots])
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return list(json.loads(done.stdout))


def package(folder: Path, text: str) -> Path:
    """A directory with a cloudpickle that is this module."""
    folder.mkdir()
    (folder / "cloudpickle.py").write_text(text)
    return folder


def offered(fn):
    return WasmImports(functions={("env", "callback"): HostFunction(in_worker(fn), ("i32",), ("i32",))})


def double(caller, value):
    return 2 * value


def name_copy(caller, at):
    """Where the worker's cloudpickle is."""
    import sys

    name = sys.modules["cloudpickle"].__file__.encode()
    caller.memory_write(at, name)
    return len(name)


def test_the_fork_server_imports_it_once_for_those_who_need_it(tmp_path):
    """Not for a plain worker, nor for one with directories; no worker that unpickles looks for it itself."""
    log, room = tmp_path / "log", tmp_path / "room"
    room.mkdir()
    log.touch(mode=0o666)
    with Supervisor(spares=0, python=wrapper(tmp_path, _LOGS.format(log=str(log)))) as host:
        plain, shipped, imports = host.compile(PLAIN), host.compile(SHIPPED), offered(double)
        with host.instantiate(plain) as instance:
            assert instance.call("run") == [I32(42)]
        with host.instantiate(plain, wasi=Wasi(dirs=[Dir(room, "/room")])) as instance:
            assert instance.call("run") == [I32(42)]
        assert log.read_text() == ""
        for _ in range(2):
            with host.instantiate(shipped, imports) as instance:
                assert instance.call("run", [21]) == [I32(42)]
        with host.instantiate(plain) as instance:
            assert instance.call("run") == [I32(42)]
        server = host.stats().fork_server
    found = [line.split() for line in log.read_text().splitlines()]
    assert found[0] == [str(server), "cloudpickle"]
    assert {pid for pid, _ in found} == {str(server)}
    assert len(set(map(tuple, found))) == len(found)


def test_a_worker_unpickles_with_the_copy_that_pickled(tmp_path, monkeypatch):
    """Not with another one that has come before it on the path since."""
    import cloudpickle

    monkeypatch.syspath_prepend(package(tmp_path / "other", "raise RuntimeError('the wrong one')"))
    with Supervisor(spares=0) as host, host.instantiate(host.compile(SHIPPED), offered(name_copy)) as instance:
        length = instance.call("run", [0])[0].value
        assert instance.memory_read(0, length).decode() == cloudpickle.__file__


def test_a_worker_looks_for_it_itself_where_the_fork_server_found_none(tmp_path, monkeypatch):
    """Or one that does not work there: both are as it was before."""
    broken = package(tmp_path / "broken", "import threading\nraise RuntimeError('not here')")
    with Supervisor(spares=0) as host:
        module, imports = host.compile(SHIPPED), offered(double)
        for root in ("", str(tmp_path / "nowhere"), str(broken)):
            monkeypatch.setattr(linking, "unpickler", lambda root=root: root)
            with host.instantiate(module, imports) as instance:
                assert instance.call("run", [21]) == [I32(42)]


def test_no_cloudpickle_at_all_is_told(tmp_path, monkeypatch):
    """As what is wrong with the function's worker, not as its crash."""
    import cloudpickle

    imports = offered(double)
    there = Path(cloudpickle.__file__).parents[1]
    with Supervisor(spares=0) as host:
        module = host.compile(SHIPPED)
        monkeypatch.setattr(linking, "unpickler", lambda: "")
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).resolve() != there])
        with pytest.raises(InstantiationError, match=r"cannot be unpickled .*ModuleNotFoundError") as caught:
            host.instantiate(module, imports)
    assert caught.value.cause is Cause.HOST_FUNCTION


def test_only_the_package_comes_from_where_it_lies(tmp_path):
    """What is installed beside it stays out of the fork server, even if the package asks for it by name."""
    (tmp_path / "stranger.py").write_text("")
    text = "try:\n    import stranger\nexcept ModuleNotFoundError:\n    import threading"
    folder = package(tmp_path / "site", text)
    (folder / "stranger.py").write_text("raise RuntimeError('a stranger in the fork server')")
    restored, file, found, *_ = loaded(folder)
    assert restored
    assert (file, found) == (str(folder / "cloudpickle.py"), ["cloudpickle", "threading"])


def test_hooks_run_in_the_forks_that_use_the_package(tmp_path):
    """And in no other fork."""
    hooks = "before=lambda: RAN.append('before'), after_in_child=lambda: RAN.append('child')"
    text = f"import os\nRAN = []\nos.register_at_fork({hooks})"
    *_, others, theirs = loaded(package(tmp_path / "site", text))
    assert others == []
    assert theirs == ["child"]


def test_what_fails_leaves_nothing_and_is_not_tried_again(tmp_path):
    """The fork server goes on, as if nothing had been asked."""
    count = tmp_path / "count"
    broken = package(tmp_path / "broken", f"open({str(count)!r}, 'a').write('x')\nraise RuntimeError('not here')")
    restored, file, found, *_ = loaded(broken, tmp_path / "nowhere", broken)
    assert (restored, file, found) == (True, None, [])
    assert count.read_text() == "x"
    good = package(tmp_path / "good", "")
    assert loaded(broken, good)[1] == str(good / "cloudpickle.py")
