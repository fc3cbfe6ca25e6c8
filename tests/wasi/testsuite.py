"""Runs a checkout of the WASI test suite: `python testsuite.py DIRECTORY [NAME …]`, by hand, because it is 100 MB.

DIRECTORY is the branch prod/testsuite-base of https://github.com/WebAssembly/wasi-testsuite, which holds the compiled
programs. Each preview 1 program runs on both hosts, in a fresh copy of its directory, and is judged by its .json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from pdsandbox import Dir, Limits, Supervisor, Wasi, WasmError, WasmtimeHost
from pdsandbox.interfaces import WasmHost


def run(host: WasmHost, program: Path) -> str | None:
    """Why it failed, or None."""
    described = program.with_suffix(".json")
    spec = json.loads(described.read_text()) if described.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        dirs = []
        if "root" in spec:
            root = Path(scratch) / "root"
            shutil.copytree(program.parent / spec["root"], root)
            dirs.append(Dir(root, "/", mode="rw"))
        for name in spec.get("dirs", ()):
            shutil.copytree(program.parent / name, Path(scratch) / name)
            dirs.append(Dir(Path(scratch) / name, name, mode="rw"))
        wasi = Wasi(args=(program.name, *spec.get("args", ())), env=spec.get("env", {}), dirs=dirs)
        try:
            with host.instantiate(host.compile(program.read_bytes()), wasi=wasi) as instance:
                result = instance.run()
        except WasmError as exc:
            return f"{exc} {exc.output and exc.output.stderr.decode(errors='replace')[-600:]}"
    wanted = spec.get("exit_code", 0)
    if result.exit_code != wanted:
        return f"exit code {result.exit_code}, not {wanted}: {result.stderr.decode(errors='replace')[-600:]}"
    if "stdout" in spec and result.stdout.decode() != spec["stdout"]:
        return f"stdout is {result.stdout!r}, not {spec['stdout']!r}"
    return None


def main(directory: str, *names: str) -> int:
    programs = sorted(p for p in Path(directory).rglob("*.wasm") if "wasip3" not in str(p))
    chosen = [p for p in programs if not names or p.stem in names]
    all_failed = 0
    for cls in (WasmtimeHost, Supervisor):
        failed = 0
        with cls(limits=Limits(fuel=None)) as host:
            for program in chosen:
                why = run(host, program)
                failed += why is not None
                print("pass" if why is None else f"FAIL {why}\n    ", cls.__name__, program.stem, flush=True)
        print(f"{cls.__name__}: {len(chosen) - failed} of {len(chosen)} passed")
        all_failed += failed
    return 1 if all_failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
