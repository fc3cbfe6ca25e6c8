"""A service with nothing to do: `python -m benchmarks.idler N`, in its own process, so that the harness does not count.

Starts N workers, has each answer one call, says so with the first worker's process id, and waits for end of file.
"""

from __future__ import annotations

import contextlib
import sys

from pdsandbox import I32, Supervisor

from .guests import ADD


def main() -> None:
    """See the module's text."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Supervisor())
        module = host.compile(ADD)
        workers = [stack.enter_context(host.instantiate(module)) for _ in range(int(sys.argv[1]))]
        for worker in workers:
            if worker.call("add", [I32(1), I32(2)]) != [I32(3)]:
                raise RuntimeError("1 + 2 is not 3")
        print(workers[0].pid, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
