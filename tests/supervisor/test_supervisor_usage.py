"""What a worker used is told once it has ended, however it ended."""

from __future__ import annotations

import pytest

from pdsandbox import Limits, RssExceeded, Supervisor, WallClockExceeded

MIB = 1 << 20

TOUCH = """(module (memory (export "memory") 1024)
  (func (export "touch") (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x3000000)))
  (func (export "spin") (loop (br 0)))
  (func (export "idle")))"""


def test_of_a_worker_that_was_closed() -> None:
    """None while it lives; then CPU time, and a peak that the 48 MiB which its guest touched are part of."""
    with Supervisor(spares=0) as host:
        module = host.compile(TOUCH)
        idle, busy = host.instantiate(module), host.instantiate(module)
        idle.call("idle")
        busy.call("touch")
        assert busy.usage() is None
        idle.close()
        busy.close()
        little, much = idle.usage(), busy.usage()
    assert little is not None
    assert much is not None
    assert much[0] > 0
    assert 47 * MIB < much[1] - little[1] < 64 * MIB


def test_of_a_worker_that_was_killed() -> None:
    """A deadline's CPU time and a memory limit's peak are known although the worker could say nothing any more."""
    with Supervisor(limits=Limits(wall_s=1.0, fuel=None), spares=0) as host:
        instance = host.instantiate(host.compile(TOUCH))
        with pytest.raises(WallClockExceeded):
            instance.call("spin")
        instance.close()
        used = instance.usage()
    assert used is not None
    assert used[0] > 0
    with Supervisor(limits=Limits(rss_bytes=40 * MIB, fuel=None, wall_s=60.0), spares=0) as host:
        instance = host.instantiate(host.compile(TOUCH))
        with pytest.raises(RssExceeded):
            instance.call("touch")
            instance.call("spin")
        instance.close()
        used = instance.usage()
    assert used is not None
    assert used[1] > 30 * MIB
