"""The README's example runs as it stands: as a script, pasted into a REPL, and in a thread of a web service."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import textwrap
import threading
import urllib.request
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run_python(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A Python of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *args], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_there_is_one_example() -> None:
    """The README shows the library in one example."""
    assert len(EXAMPLES) == 1


def test_the_example_is_a_script(tmp_path: Path) -> None:
    """Saved to a file without a `__main__` guard it runs, says nothing, and ends."""
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[0], "utf-8")
    done = run_python(str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_example_can_be_pasted_into_a_repl() -> None:
    """Typed line by line, as it stands, into an interactive interpreter, it raises nothing."""
    done = run_python("-q", "-i", stdin=EXAMPLES[0] + "\nprint('done:', total.__name__)\n")
    assert done.returncode == 0
    assert "Error" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "done: total" in done.stdout


def test_the_example_runs_in_a_thread_of_a_web_service() -> None:
    """A request handler of a threading HTTP server runs it, several requests at once."""
    body = compile(EXAMPLES[0], "README.md", "exec")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names: dict[str, object] = {}
            exec(body, names)
            answer = repr(names["logged"]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_args: object) -> None:
            pass

    answers: list[bytes] = []

    def ask(port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as reply:
            answers.append(reply.read())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        clients = [threading.Thread(target=ask, args=(server.server_address[1],)) for _ in range(3)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        server.shutdown()
        serving.join()
    assert answers == [repr([(1, b"priced")] * 4).encode()] * 3


@pytest.mark.parametrize("part", ["pdsandbox demo", ".venv/bin/pytest"])
def test_the_two_commands_are_one_line_each(part: str) -> None:
    """Each of the two commands stands in the README once, as one line that makes its own environment."""
    lines = [line for line in README.read_text("utf-8").splitlines() if line.endswith(part)]
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/pip install -q -e '.[")


def test_the_example_is_short() -> None:
    """About thirty lines of library use, the plugin's text aside."""
    without_plugin = re.sub(r'"""\(module.*?"""', '""', EXAMPLES[0], flags=re.DOTALL)
    assert len(textwrap.dedent(without_plugin).splitlines()) <= 35
