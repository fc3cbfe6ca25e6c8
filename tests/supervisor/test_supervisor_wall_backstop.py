"""The kernel's timer in the worker: it ends there when the whole process of the supervisor is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from supervising import PATIENCE_S, import_path, stop_process, wait_process_ends

WALL_S = 1.0

SCRIPT = """
import sys
sys.path[:0] = sys.argv[2:]
from supervising import GUEST, imports
from pdsandbox import Limits, Supervisor, WasmError
host = Supervisor(limits=Limits(fuel=None, wall_s=float(sys.argv[1])), spares=0)
def tell(_value):
    print(instance.pid, flush=True)
instance = host.instantiate(host.compile(GUEST), imports(tell=tell))
try:
    {operation}
except WasmError as exc:
    print(type(exc).__name__, exc.cause.name, exc.limit, flush=True)
host.close()
"""

OPERATIONS = {"call": 'instance.call("run")', "call_many": 'instance.call_many("run", [[]])'}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_supervisor_is_stopped_while_the_worker_loops(operation):
    """The worker ends by itself within a bound; once continued, the supervisor reports the deadline."""
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(operation=operation), str(WALL_S), *import_path()],
        stdout=subprocess.PIPE,
        text=True,
    )
    with script:
        try:
            worker = int(script.stdout.readline())
            stop_process(script.pid)
            started = time.monotonic()
            wait_process_ends(worker)
            assert time.monotonic() - started < 10 * (2 * WALL_S + 2)
            os.kill(script.pid, signal.SIGCONT)
            assert script.stdout.readline() == f"WallClockExceeded WALL {WALL_S}\n"
            assert script.wait(PATIENCE_S) == 0
        finally:
            if script.poll() is None:
                script.kill()
