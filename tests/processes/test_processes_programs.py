"""The supervisor works in every kind of program: threads, asyncio, pytest's workers, scripts, REPLs, …"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest
from programs import PATIENCE_S, Program, environment, package_root

PLAIN = """
    from pdsandbox import Supervisor
    from userland import add, say

    with Supervisor() as host:
        say(answer=add(host))
"""


def test_a_script_without_a_main_guard(program):
    """A script whose whole work is at its top level runs once, and nothing of it runs in another process."""
    with program(PLAIN) as script:
        assert script.report() == {"answer": 3}
        code, out, err = script.end()
    assert (code, out, err) == (0, "", "")


def test_a_program_with_many_busy_threads(program):
    """Sixteen threads, four of which never rest, started before the supervisor, change no answer."""
    with program("""
        import threading
        from pdsandbox import Supervisor
        from userland import add, say

        stop = threading.Event()

        def spin():
            while not stop.is_set():
                pass

        threads = [threading.Thread(target=spin if n < 4 else stop.wait) for n in range(16)]
        for thread in threads:
            thread.start()
        with Supervisor() as host:
            answers = [add(host, n, n) for n in range(5)]
        stop.set()
        for thread in threads:
            thread.join()
        say(answers=answers)
    """) as script:
        assert script.report() == {"answers": [0, 2, 4, 6, 8]}
        script.ended_well()


def test_asyncio_from_the_loops_thread_and_from_others(program):
    """Plain calls inside a coroutine, and through to_thread; asyncio's own child processes keep their exit codes."""
    with program("""
        import asyncio, sys
        from pdsandbox import Supervisor
        from userland import add, say

        async def child(code):
            process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", f"raise SystemExit({code})")
            return await process.wait()

        async def main():
            with Supervisor() as host:
                before = asyncio.create_task(child(3))
                answers = [add(host)]
                threads = (asyncio.to_thread(add, host, n, n) for n in range(8))
                answers += await asyncio.gather(*threads)
                return answers, await before, await child(4)

        answers, *codes = asyncio.run(main())
        say(answers=answers, codes=codes)
    """) as script:
        assert script.report() == {"answers": [3, 0, 2, 4, 6, 8, 10, 12, 14], "codes": [3, 4]}
        script.ended_well()


def test_workers_of_pytest(tmp_path):
    """Under `pytest -n 2`, each of pytest's worker processes has a supervisor of its own."""
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("needs pytest-xdist")
    (tmp_path / "test_two.py").write_text(
        textwrap.dedent("""
            import pytest
            from pdsandbox import Supervisor
            from userland import add

            @pytest.fixture(scope="session")
            def host():
                with Supervisor() as host:
                    yield host

            @pytest.mark.parametrize("n", range(6))
            def test_add(host, n):
                assert add(host, n, n) == 2 * n
        """)
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout


REPL = """
from pdsandbox import HostFunction, Supervisor, WasmImports, in_worker
def double(caller, value):
    return value * 2

wat = '(module (import "m" "f" (func $f (param i32) (result i32)))'
wat += ' (func (export "g") (result i32) (call $f (i32.const 21))))'
host = Supervisor()
functions = {("m", "f"): HostFunction(in_worker(double), ("i32",), ("i32",))}
instance = host.instantiate(host.compile(wat), WasmImports(functions=functions))
instance.call("g")
instance.func("g")()
"""


def test_a_repl():
    """Typed line by line, a function of the REPL's own shipped to the worker; leaving it leaves nothing behind."""
    with Program([sys.executable, "-q", "-i"], env=environment(PYTHON_BASIC_REPL="1")) as repl:
        code, out, err = repl.end(REPL)
    assert code == 0, err
    assert "[I32(42)]" in out
    assert "42" in out.splitlines()[-1]
    assert "Traceback" not in err


def test_a_command_line_program():
    """`python -c`, where the main module has no file."""
    with Program([sys.executable, "-W", "error", "-c", textwrap.dedent(PLAIN)]) as command:
        assert command.report() == {"answer": 3}
        command.ended_well()


def test_a_program_from_standard_input():
    """`python -`, where the main module is read as it goes."""
    with Program([sys.executable, "-W", "error", "-"]) as command:
        code, out, err = command.end(textwrap.dedent(PLAIN))
    assert (code, out, err) == (0, '{"answer": 3}\n', "")


def test_an_editable_install(tmp_path):
    """Importable only by a line in a .pth file, from a path with a space and no ASCII; the fork server finds it too."""
    checkout, site = tmp_path / "a chéckout", tmp_path / "site"
    checkout.mkdir()
    site.mkdir()
    (checkout / "pdsandbox").symlink_to(package_root() / "pdsandbox")
    (site / "editable.pth").write_text(f"import sys; sys.path.insert(0, {str(checkout)!r})\n", encoding="utf-8")
    source = f"""
        import site, sys
        site.addsitedir({str(site)!r})
        sys.path.append({os.path.dirname(__file__)!r})
        import pdsandbox
        from userland import say
        say(file=pdsandbox.__file__)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(source) + textwrap.dedent(PLAIN)]
    with Program(command, env=environment(importable=False)) as editable:
        assert editable.report()["file"].startswith(str(checkout))
        assert editable.report() == {"answer": 3}
        editable.ended_well()


@pytest.mark.parametrize(
    ("spoil", "hint"),
    [
        ("sys.executable = ''", "python="),
        ("sys.executable = None", "python="),
        ("sys.frozen = True", "python="),
        ("sys.executable = '/nonexistent/python'", "/nonexistent/python"),
        ("sys.executable = '/'", "Permission denied"),
        ("sys.executable = '/bin/false'", "fork server"),
    ],
)
def test_a_program_that_is_no_python(program, spoil, hint):
    """Frozen, embedded or misled: a clear error, cause HOST, and `python=` works."""
    with program(
        f"""
        import sys
        from pdsandbox import Supervisor
        from userland import ADD, add, failure, say

        python = sys.executable
        {spoil}
        with Supervisor() as host:
            say(**failure(lambda: host.compile(ADD)))
        with Supervisor(python=python) as host:
            say(answer=add(host))
    """
    ) as script:
        refused = script.report()
        assert (refused["error"], refused["cause"]) == ("CompileError", "HOST")
        assert hint in refused["text"]
        assert script.report() == {"answer": 3}
        script.ended_well()
