"""`python -m pdsandbox`: the same as the command `pdsandbox`."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
