"""seccomp: builds and installs system-call filters, classic BPF programs over `struct seccomp_data`.

A filter is a table from call numbers to what to do; it is turned into a search tree, because the kernel walks it once
for every call number when it is installed, and again for each call whose arguments it looks at. Sources: the kernel's
Documentation/userspace-api/seccomp_filter.rst, seccomp(2), and include/uapi/linux/{filter,seccomp,audit}.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .calls import syscall

__all__ = ["ALLOW", "AUDIT_ARCH_X86_64", "KILL", "OWN_PID", "X32_BIT", "DenyBits", "Filter", "Only", "errno_of"]

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000  # the whole process, by SIGSYS
_ERRNO: Final = 0x00050000
_EPERM: Final = _ERRNO | 1

AUDIT_ARCH_X86_64: Final = 0xC000003E
X32_BIT: Final = 0x40000000
_NR_SECCOMP: Final = 317  # x86_64
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1

# Offsets in struct seccomp_data, little-endian.
_AT_NR, _AT_ARCH, _AT_ARGS = 0, 4, 16
_LOAD, _JEQ, _JGE, _JSET, _JUMP, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x05, 0x54, 0x06
_INSTRUCTION: Final = struct.Struct("<HBBI")
_Instruction = tuple[int, int, int, int]

#: In `Only`: the pid of the process that installs the filter, which is not known when it is built.
OWN_PID: Final = 0xFFFF_FFFE


def errno_of(number: int) -> int:
    """The action: the call fails with errno `number`."""
    return _ERRNO | number


@dataclass(frozen=True, slots=True)
class DenyBits:
    """EPERM when argument `arg` has any bit of `mask` (of its lower 32)."""

    arg: int
    mask: int


@dataclass(frozen=True, slots=True)
class Only:
    """`otherwise` unless argument `arg`, of which the bits in `mask` are looked at, is one of `values`.

    Of its 64 bits, `mask` is for the lower half, or with `high` for the upper one.
    """

    arg: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    otherwise: int = _EPERM
    high: bool = False


# An action, or conditions that must all hold for the call to be allowed.
Rule = int | tuple[DenyBits | Only, ...]


class Filter:
    """A program, built before the fork. `install_here` adds what is not known there: the pid of the process."""

    def __init__(self, rules: Mapping[int, Rule], default: int = _EPERM) -> None:
        program = [
            (_LOAD, 0, 0, _AT_ARCH),
            (_JEQ, 1, 0, AUDIT_ARCH_X86_64),
            (_RET, 0, 0, KILL),
            (_LOAD, 0, 0, _AT_NR),
            (_JGE, 0, 1, X32_BIT),
            (_RET, 0, 0, KILL),
            *_tree(_intervals(rules, default)),
        ]
        code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
        self._pid_at = [8 * n + 4 for n, item in enumerate(program) if item[0] == _JEQ and item[3] == OWN_PID]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._fprog = ctypes.create_string_buffer(
            struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(self._code)), 16
        )
        self.instructions = len(program)

    def install_here(self) -> None:
        """For all threads of this process, for good; on top of the filters that are there."""
        for at in self._pid_at:
            struct.pack_into("<I", self._code, at, os.getpid())
        # TSYNC fails with the id of a thread that could not follow.
        if syscall("seccomp", _NR_SECCOMP, _SET_MODE_FILTER, _TSYNC, self._fprog):
            raise OSError("seccomp: a thread of the process cannot be put under the filter")


def _intervals(rules: Mapping[int, Rule], default: int) -> list[tuple[int, Rule]]:
    """(first number, rule) of maximal runs of numbers with one rule, from 0 to the last number there is."""
    found: list[tuple[int, Rule]] = []

    def begin(number: int, rule: Rule) -> None:
        if not found or found[-1][1] != rule:
            found.append((number, rule))

    following = 0
    for number in sorted(rules):
        if number > following:
            begin(following, default)
        begin(number, rules[number])
        following = number + 1
    begin(following, default)
    return found


def _tree(intervals: list[tuple[int, Rule]]) -> list[_Instruction]:
    """Binary search by the number in the accumulator."""
    if len(intervals) == 1:
        return _leaf(intervals[0][1])
    half = len(intervals) // 2
    low, high = _tree(intervals[:half]), _tree(intervals[half:])
    first = intervals[half][0]
    if len(low) <= 255:
        return [(_JGE, len(low), 0, first), *low, *high]
    return [(_JGE, 0, 1, first), (_JUMP, 0, 0, len(low)), *low, *high]


def _leaf(rule: Rule) -> list[_Instruction]:
    if isinstance(rule, int):
        return [(_RET, 0, 0, rule)]
    code: list[_Instruction] = []
    for check in rule:
        upper = isinstance(check, Only) and check.high
        code.append((_LOAD, 0, 0, _AT_ARGS + 8 * check.arg + 4 * upper))
        if isinstance(check, DenyBits):
            code += [(_JSET, 0, 1, check.mask), (_RET, 0, 0, _EPERM)]
        else:
            if check.mask != 0xFFFFFFFF:
                code.append((_AND, 0, 0, check.mask))
            count = len(check.values)
            # A match jumps over the comparisons that are left and over the refusal.
            code += [(_JEQ, count - n, 0, value) for n, value in enumerate(check.values)]
            code.append((_RET, 0, 0, check.otherwise))
    return [*code, (_RET, 0, 0, ALLOW)]
