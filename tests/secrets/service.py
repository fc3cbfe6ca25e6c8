"""A service that has secrets, run by the tests as a process of its own: it plants marks and says what it has done.

Started with a mark in its environment and one as its argument; the tag for the others comes on its standard input.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import pickle
import sys
import threading
from typing import Any

from pdsandbox import HostFunction, Limits, Supervisor, WasmError, WasmImports, in_worker

#: What `plant` plants, beside `environment` and `argument`.
FORMS = (
    *("bytes", "bytearray", "memoryview", "str", "str-of-two-bytes", "str-of-four-bytes", "pickled", "c-buffer"),
    *("global", "attribute", "closure", "dict-key", "nested", "exception-text", "frame-local", "shared-memory"),
    "host-function",
)

GUEST = """(module
  (import "env" "here" (func $here (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "call") (param i32) (result i32) (call $here (local.get 0))))"""

SHIPPED = """(module
  (import "env" "there" (func $there (result i32)))
  (import "env" "answer" (func $answer (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 4096) "{data}")
  (func (export "there") (result i32) (call $there))
  (func (export "answer") (param i32) (call $answer (local.get 0))))"""

secret_global: Any = None
kept: list[Any] = []


class Account:
    def __init__(self, secret: str) -> None:
        self.secret = secret


def plant(tag: str) -> Any:
    """Every form of secret that this process has, and a host function that holds one of them, too."""
    global secret_global

    def mark(label: str) -> str:
        assert label in FORMS
        return f"{tag}:{label};"

    secret_global = mark("global")
    shared = mmap.mmap(-1, 4096)
    shared.write(mark("shared-memory").encode())
    kept.extend(
        [
            mark("bytes").encode(),
            bytearray(mark("bytearray").encode()),
            memoryview(mark("memoryview").encode()),
            mark("str"),
            mark("str-of-two-bytes") + "\N{EURO SIGN}",
            mark("str-of-four-bytes") + "\N{GRINNING FACE}",
            Account(mark("attribute")),
            {mark("dict-key"): 1},
            [({"a": [(None, {"b": Account(mark("nested"))})]},)],
            pickle.dumps([mark("pickled")]),
            ctypes.create_string_buffer(mark("c-buffer").encode()),
            shared,
        ]
    )
    closure = mark("closure")
    kept.append(lambda: closure)

    def fail() -> None:
        local = mark("frame-local")
        raise ValueError(mark("exception-text"), len(local))

    try:
        fail()
    except ValueError as exc:
        kept.append(exc)

    held = mark("host-function")

    def here(_caller: Any, value: int) -> int:
        if value:
            raise ValueError(held, secret_global)
        return len(held)

    return here


def answer(text: str) -> HostFunction:
    """Writes `text` into the guest's memory."""
    return HostFunction(lambda caller, at: caller.memory_write(at, text.encode()), ("i32",))


def shipping(text: str) -> HostFunction:
    """A function in the worker with `text` among what it brings along."""
    return HostFunction(in_worker(lambda _caller: len(text)), results=("i32",))


class Service:
    """What the tests can ask for, a line each."""

    def __init__(self) -> None:
        self.host = Supervisor(limits=Limits(compile_wall_s=None, wall_s=60.0), spares=1)
        self.instances: dict[str, Any] = {}

    def plant(self, tag: str) -> None:
        """All forms, and a guest that calls a host function with a secret in it, well and failing."""
        guest = self.host.instantiate(
            self.host.compile(GUEST),
            WasmImports(functions={("env", "here"): HostFunction(plant(tag), ("i32",), ("i32",))}),
        )
        guest.call("call", [0])
        for _ in range(3):
            try:
                guest.call("call", [1])
            except WasmError as exc:
                kept.append(exc)
        self.instances["plain"] = guest

    def share(self, tag: str) -> None:
        """An instance that is told secrets in every way there is."""
        functions = {("env", "there"): shipping(f"{tag}:shipped;"), ("env", "answer"): answer(f"{tag}:answered;")}
        guest = self.host.instantiate(
            self.host.compile(SHIPPED.format(data=f"{tag}:data;")), WasmImports(functions=functions)
        )
        guest.call("there")
        guest.memory_write(1024, f"{tag}:written;".encode())
        guest.call("answer", [2048])
        self.instances["told"] = guest

    def make(self, name: str) -> None:
        """One more instance of an innocent guest."""
        functions = {("env", "there"): shipping("nothing"), ("env", "answer"): answer("nothing")}
        guest = self.host.instantiate(self.host.compile(SHIPPED.format(data="x")), WasmImports(functions=functions))
        guest.call("there")
        self.instances[name] = guest

    def end(self, name: str) -> None:
        self.instances.pop(name).close()

    def compile(self, source: str) -> None:
        """In a thread: it takes longer than anybody looks."""

        def run() -> None:
            try:
                self.host.compile(bytes.fromhex(source))
            except WasmError:
                pass  # the supervisor is closed

        threading.Thread(target=run).start()


def main() -> None:
    service = Service()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        getattr(service, name)(*arguments)
        print(json.dumps({name: instance.pid for name, instance in service.instances.items()}), flush=True)
    service.host.close()


if __name__ == "__main__":
    main()
