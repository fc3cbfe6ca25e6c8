"""Searches the whole memory of a process for marks: `TAG:label;` in any of the encodings in which Python keeps text.

A mark's label tells where it was planted. The tag is random, so that nothing but a copy of it can look like it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

# str keeps one, two or four bytes a character, by its widest one.
ENCODINGS = ("ascii", "utf-16-le", "utf-32-le")
#: A tag without a label: a copy that was partly overwritten, or the tag as the service was told it. A find as well.
UNLABELLED = "?"
_PIECE = 4 << 20
_LABEL_CHARS = 40
_LABEL = re.compile(r":([a-z0-9 _-]+);")
# Mapped into every process by the kernel, and not to be read through /proc.
_KERNELS = ("[vvar", "[vsyscall]")


def why_not(pid: int) -> str | None:
    """Why the memory of this process cannot be searched, or None."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except PermissionError as exc:
        return f"may not read the memory of process {pid}: {exc.strerror}"
    return None


def labels(pid: int, tag: str) -> set[str]:
    """The labels of all marks with this tag in the memory of a process, its environment and its command line."""
    found = in_memory(pid, tag)
    for name in ("environ", "cmdline"):
        found |= _in(Path(f"/proc/{pid}/{name}").read_bytes(), tag)
    return found


def in_memory(pid: int, tag: str) -> set[str]:
    """The labels in its memory: every mapping that can be read, and those that cannot where pages are present."""
    found: set[str] = set()
    total = 0
    overlap = 4 * (len(tag) + _LABEL_CHARS)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in list(_mappings(pid)):
            for at in range(start, end, _PIECE):
                low = max(start, at - overlap)
                try:
                    data = os.pread(memory, min(end, at + _PIECE) - low, low)
                except OSError:
                    break  # unmapped since it was listed, or beyond the end of its file
                total += len(data)
                found |= _in(data, tag)
    finally:
        os.close(memory)
    assert total > 8 << 20, f"only {total} bytes of process {pid} could be read"
    return found


def _mappings(pid: int) -> Iterator[tuple[int, int]]:
    start = end = 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as listing:
        skip = True
        for line in listing:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....) ", line)
            if head:
                start, end = int(head[1], 16), int(head[2], 16)
                readable = head[3][0] == "r"
                skip = any(name in line for name in _KERNELS)
                if readable and not skip:
                    yield start, end
                    skip = True
            elif not skip and line.startswith(("Rss:", "Swap:")) and int(line.split()[1]):
                yield start, end  # native code could make it readable
                skip = True


def _in(data: bytes, tag: str) -> set[str]:
    found = set()
    for encoding in ENCODINGS:
        needle, width = tag.encode(encoding), len("x".encode(encoding))
        at = data.find(needle)
        while at >= 0:
            after = at + len(needle)
            text = data[after : after + width * _LABEL_CHARS].decode(encoding, "replace")
            label = _LABEL.match(text)
            found.add(label[1] if label else UNLABELLED)
            at = data.find(needle, after)
    return found
