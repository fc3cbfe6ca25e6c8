"""One of two rivals that compute side by side: `python -m benchmarks.cruncher`, plain wasmtime-py in its own process.

Reads how many units to do, one line each, and writes the answer to each. End of file ends it.
"""

from __future__ import annotations

import sys

from .metering import FUEL, plain_crunch


def main() -> None:
    """See the module's text."""
    crunch = plain_crunch(FUEL)
    for line in sys.stdin:
        print(crunch(int(line)), flush=True)


if __name__ == "__main__":
    main()
