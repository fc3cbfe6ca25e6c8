"""The net itself: what the autouse fixture relies on sees processes, orphans, zombies and descriptors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from leaks import Holdings, descendants, wait_until


def test_a_child_and_its_pipe_are_extra_until_reaped_and_closed():
    """A running child, our end of its pipe, then its zombie are reported; after close and wait nothing is."""
    before = Holdings()
    child = subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    running = before.extra(patience_s=0)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = before.extra(patience_s=0)
    child.wait()
    assert [line.split()[0] for line in running] == ["process", "fd"]
    assert f"{child.pid} (zombie" in zombie[0]
    assert before.extra() == []


def test_a_descriptor_is_extra_also_where_its_number_was_open_before():
    """A descriptor that was closed and opened on something else is reported with its target."""
    fd = os.open(os.devnull, os.O_RDONLY)
    before = Holdings()
    other = os.open("/", os.O_RDONLY)
    os.dup2(other, fd)
    os.close(other)
    left = before.extra(patience_s=0)
    os.close(fd)
    assert left == [f"fd {fd} -> /"]


@pytest.mark.orphans
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_an_orphan_does_not_get_away():
    """A grandchild whose parent has died is still counted."""
    script = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    grandchild = int(subprocess.run([sys.executable, "-ISc", script], stdout=subprocess.PIPE, check=True).stdout)
    counted = grandchild in descendants()
    os.kill(grandchild, signal.SIGKILL)
    assert counted
    assert wait_until(lambda: os.waitpid(grandchild, os.WNOHANG)[0] == grandchild)
