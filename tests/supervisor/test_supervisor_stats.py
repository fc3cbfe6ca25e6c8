"""`Supervisor.stats()`: what there is now, and what there was."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from supervising import MIB, PATIENCE_S, Thread, fork_server_of, make_guest

from pdsandbox import Cause, HostStats, InstantiationError, Limits, Supervisor


@pytest.fixture
def host() -> Iterator[Supervisor]:
    """A supervisor of the test's own, without spares."""
    with Supervisor(limits=Limits(fuel=None, wall_s=60.0), spares=0) as made:
        yield made


def test_stats_now(host):
    """What there is, counted when asked; memory only when that is asked for."""
    assert host.stats() == HostStats(
        **dict.fromkeys((name for name in HostStats.__dataclass_fields__), 0)
        | {"workers_ended": {}, "resident_bytes": None, "fork_server": None}
    )
    running, gate = threading.Event(), threading.Event()
    first, second = make_guest(host, tell=lambda _value: (running.set(), gate.wait(PATIENCE_S))), make_guest(host)
    stats = host.stats()
    assert (stats.workers, stats.instances, stats.busy, stats.resident_bytes) == (2, 2, 0, None)
    assert stats.fork_server == fork_server_of(host).pid
    assert 10 * MIB < host.stats(memory=True).resident_bytes < 200 * MIB
    thread = Thread(lambda: first.call("tell", [1]))
    assert running.wait(PATIENCE_S)
    assert host.stats().busy == 1
    gate.set()
    thread.result()
    assert host.stats().busy == 0
    second.close()
    assert host.stats().workers == 1
    host.close()
    stats = host.stats(memory=True)
    assert (stats.workers, stats.fork_server, stats.resident_bytes, stats.cached_modules) == (0, None, 0, 0)
    assert (stats.workers_started, stats.workers_ended) == (2, {Cause.CLOSED: 2})


def test_stats_of_a_parent_are_not_a_forks(host):
    """A forked child is told so; a supervisor that nobody has used yet is anybody's."""
    make_guest(host)
    unused = Supervisor()
    pid = os.fork()
    if not pid:
        try:
            assert unused.stats().workers == 0
            host.stats()
        except InstantiationError as exc:
            os._exit(0 if exc.cause is Cause.USAGE else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
