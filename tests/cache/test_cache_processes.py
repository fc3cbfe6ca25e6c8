"""Many processes on one cache, and some that die in the middle of it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from caching import Shelf

import pdsandbox

HERE = Path(__file__).parent
PATHS = [str(HERE), str(Path(pdsandbox.__file__).parents[1])]
CODE = b"native code" * 100


@pytest.mark.hammer
def test_fifty_processes(tmp_path):
    """All at once on a cache without a key and with room for four of eight: whatever is loaded is what was stored,
    nobody is told of anything, one key is made, and no more is left than there is room for."""
    line = [sys.executable, str(HERE / "crowd.py"), str(tmp_path), "50", "20", *PATHS]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=100, check=True)
    told = json.loads(ended.stdout)
    assert told["wrong"] == []
    assert told["found"] > 0
    shelf = Shelf(tmp_path, 10_000)
    assert {name.rpartition(".")[2] for name in shelf.names()} == {"code"}
    assert os.listdir(shelf.secret.parent) == ["cache.key"]
    shelf.store("last", CODE)
    assert sum(path.stat().st_size for path in shelf.path.iterdir()) <= 10_000
    assert shelf.load("last") == CODE


@pytest.mark.hammer
def test_many_threads(tmp_path, told):
    """One cache in eight threads, with room for half of what they store: as above."""
    shelf = Shelf(tmp_path, 10_000)
    codes = {name: bytes([name]) * (2000 + 100 * name) for name in range(8)}

    def work(seed):
        dice, found = random.Random(seed), 0
        for _ in range(40):
            name = dice.choice(list(codes))
            code = shelf.load(name)
            if code is None:
                shelf.store(name, codes[name])
            else:
                assert code == codes[name]
                found += 1
        return found

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) > 0
    assert told.warnings == []
    assert {name.rpartition(".")[2] for name in shelf.names()} == {"code"}


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_killed_while_writing(tmp_path, call):
    """SIGKILL before the bytes are on the disk, or before they have their name: others see nothing of it, and what is
    left is swept later."""
    shelf = Shelf(tmp_path)
    shelf.store("before", CODE)
    script = f"""if True:
        import os, signal, sys
        sys.path[:0] = {PATHS!r}
        from pathlib import Path
        from caching import Shelf
        shelf = Shelf(Path({str(tmp_path)!r}))
        os.{call} = lambda *_args, **_options: os.kill(os.getpid(), signal.SIGKILL)
        shelf.store("this", {CODE!r})
    """
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = shelf.names() - {shelf.entry("before").name}
    assert left.endswith(".writing")
    assert shelf.load("this") is None
    shelf.store("this", CODE)
    assert shelf.load("this") == CODE
    assert (shelf.path / left).exists()  # it might still be written
    long_ago = shelf.entry("this").stat().st_mtime_ns - 3601 * 10**9
    os.utime(shelf.path / left, ns=(long_ago, long_ago))
    shelf.store("that", CODE)
    assert not (shelf.path / left).exists()
    assert shelf.load("before") == CODE


def test_killed_while_making_the_key(tmp_path):
    """The next one makes one."""
    shelf = Shelf(tmp_path)
    script = f"""if True:
        import os, signal, sys
        sys.path[:0] = {PATHS!r}
        from pathlib import Path
        from caching import Shelf
        os.link = lambda *_args, **_options: os.kill(os.getpid(), signal.SIGKILL)
        Shelf(Path({str(tmp_path)!r})).store("this", b"code")
    """
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not shelf.secret.exists()
    shelf.store("this", CODE)
    assert shelf.load("this") == CODE
