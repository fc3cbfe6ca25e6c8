"""A process that runs guests under plain wasmtime with its own WASI, and answers what it is asked over its standard
streams. That starts threads for good, which must not be in a process whose tests fork."""

from __future__ import annotations

import pickle
import sys
import tempfile
from pathlib import Path

import wasmtime
from real_programs import argv


class Served:
    """Each method answers one kind of request."""

    def __init__(self):
        self.engine = wasmtime.Engine()
        self.modules = {}
        self.made = []

    def instantiate(self, source, config):
        """(store, exports)"""
        if source not in self.modules:
            self.modules[source] = wasmtime.Module(self.engine, source)
        store = wasmtime.Store(self.engine)
        store.set_wasi(config)
        linker = wasmtime.Linker(self.engine)
        linker.define_wasi()
        linker.define_unknown_imports_as_traps(self.modules[source])
        return store, linker.instantiate(store, self.modules[source]).exports(store)

    def make(self, source, dirs):
        config = wasmtime.WasiConfig()
        for host, guest, mutable in dirs:
            config.preopen_dir(host, guest, mutable)
        self.made.append(self.instantiate(source, config))
        return len(self.made) - 1

    def close(self, number):
        self.made[number][0].close()
        self.made[number] = None

    def call(self, number, name, args):
        """What ends a call gives "trap" or "exit N"."""
        store, exports = self.made[number]
        try:
            return exports[name](store, *args)
        except wasmtime.ExitTrap as exc:
            return f"exit {exc.code}"
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            return "trap"

    def read(self, number, offset, length):
        store, exports = self.made[number]
        return bytes(exports["memory"].read(store, offset, offset + length))

    def write(self, number, offset, data):
        store, exports = self.made[number]
        exports["memory"].write(store, data, offset)

    def run(self, source, root, args, env, stdin):
        """(exit code, stdout, stderr) of a command, with `root` as "/" unless it is None."""

        def start(store, exports):
            exports["_start"](store)
            return 0

        return self._ended(source, root, args, env, stdin, start)

    def run_argv(self, source, root, args, stdin, name):
        """The same of a reactor's export `name`, which takes argc and argv: it gives the exit code."""

        def start(store, exports):
            exports["_initialize"](store)
            count, place, data = argv(args, lambda size: exports["malloc"](store, size))
            exports["memory"].write(store, data, place)
            return exports[name](store, count, place)

        return self._ended(source, root, (), [], stdin, start)

    def _ended(self, source, root, args, env, stdin, start):
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            config = wasmtime.WasiConfig()
            config.argv, config.env = args, env
            (scratch / "stdin").write_bytes(stdin)
            config.stdin_file = str(scratch / "stdin")
            config.stdout_file, config.stderr_file = str(scratch / "stdout"), str(scratch / "stderr")
            if root is not None:
                config.preopen_dir(root, "/")
            store, exports = self.instantiate(source, config)
            try:
                code = start(store, exports)
            except wasmtime.ExitTrap as exc:
                code = exc.code
            store.close()
            return code, (scratch / "stdout").read_bytes(), (scratch / "stderr").read_bytes()


def main():
    served = Served()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            what, args = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(getattr(served, what)(*args), replies)
        replies.flush()


if __name__ == "__main__":
    main()
