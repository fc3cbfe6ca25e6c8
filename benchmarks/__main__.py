"""The entry point. Imports nothing at its top that a bare installation may lack."""

from __future__ import annotations

import sys

_OURS = {
    "click",
    "rich",
    "psutil",
    "numpy",
    "matplotlib",
    "jinja2",
    "pdsandbox",
    "wasmtime",
    "extism",
    "loky",
    "pebble",
    "vt100wasm",
}


def main() -> int:
    """Run the harness, which exits; the exit status when it could not even start."""
    try:
        from .app import cli

        cli(prog_name="python -m benchmarks")
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing not in _OURS:
            raise
        print(f"benchmarks: {missing} is missing: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
