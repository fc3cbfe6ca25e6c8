"""The floor under reading and writing another process's memory: one process_vm copy, and the same bytes through a pipe.

The other process is a Python that does nothing else (`holder`). No bounds, no limits, no framing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .holder import ADDRESS, COMMAND, DONE, SEND, TAKE
from .measure import Unmeasurable

_HOLDER = Path(__file__).with_name("holder.py")
# It ends at end of file, in milliseconds; more only when something is badly wrong.
_END_S = 10.0


class Holder:
    """A process that holds `size` bytes, 0 to 255 over and over. A context manager."""

    def __init__(self, size: int) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_HOLDER), str(commands), str(answers), str(size)],
                stdin=subprocess.DEVNULL,
                pass_fds=(commands, answers),
                start_new_session=True,  # Ctrl-C is for us: end of file ends it
            )
        except BaseException:
            os.close(self._commands)
            os.close(self._answers)
            raise
        finally:
            os.close(commands)
            os.close(answers)
        self.pid = self._child.pid
        try:
            (self.address,) = ADDRESS.unpack(os.read(self._answers, ADDRESS.size))
        except BaseException:
            self.close()
            raise

    def piped_read(self, size: int) -> bytearray:
        """`size` bytes of it, through the pipe."""
        os.write(self._commands, COMMAND.pack(SEND, size))
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            got = os.readv(self._answers, [view[done:]])
            if not got:
                raise RuntimeError("the holder died")
            done += got
        return data

    def piped_write(self, data: bytes) -> None:
        """`data` to it, through the pipe."""
        os.write(self._commands, COMMAND.pack(TAKE, len(data)))
        view, done = memoryview(data), 0
        while done < len(data):
            done += os.write(self._commands, view[done:])
        if os.read(self._answers, 1) != DONE:
            raise RuntimeError("the holder died")

    def close(self) -> None:
        """End the process and reap it."""
        os.close(self._commands)
        os.close(self._answers)
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class ProcessVM:
    """process_vm_readv and _writev by ctypes, on one buffer of one process.

    Raises Unmeasurable where the kernel or this Python does not offer them; `read` and `write`, OSError.
    """

    def __init__(self, pid: int, address: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            readv, writev = libc.process_vm_readv, libc.process_vm_writev
        except AttributeError as exc:
            raise Unmeasurable("this C library has no process_vm_readv") from exc
        many = ctypes.c_ulong
        iovecs = ctypes.POINTER(_Iovec)
        for function in (readv, writev):
            function.argtypes = (ctypes.c_int, iovecs, many, iovecs, many, many)
            function.restype = ctypes.c_ssize_t
        self._readv, self._writev = readv, writev
        self._pid = pid
        self._here, self._there = _Iovec(), _Iovec(address)
        # A private type: `pythonapi` itself is shared by the process, and so are its functions' argument types.
        python = ctypes.PyDLL(None)
        self._new_bytes: Any = python.PyBytes_FromStringAndSize
        self._new_bytes.argtypes, self._new_bytes.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object
        self._at: Any = python.PyBytes_AsString
        self._at.argtypes, self._at.restype = (ctypes.py_object,), ctypes.c_void_p

    def read(self, size: int) -> bytes:
        """`size` bytes of the buffer, copied once, into new bytes that nobody zeroed before."""
        data: bytes = self._new_bytes(None, size)
        self._copy(self._readv, data)
        return data

    def write(self, data: bytes) -> None:
        """`data` into the buffer, copied once."""
        self._copy(self._writev, data)

    def _copy(self, function: Any, data: bytes) -> None:
        self._here.base = self._at(data)
        self._here.length = self._there.length = len(data)
        copied = function(self._pid, self._here, 1, self._there, 1, 0)
        if copied != len(data):
            number = ctypes.get_errno() if copied < 0 else 0
            raise OSError(number, os.strerror(number) if number else f"{copied} bytes of {len(data)} were copied")


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


# process_vm_readv, process_vm_writev: linux/arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_NUMBERS = {"x86_64": (310, 311), "aarch64": (270, 271)}
# linux/filter.h, linux/seccomp.h, linux/prctl.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_EPERM = 1


def refuse_process_vm() -> None:
    """From here on, process_vm_* fails with EPERM in this thread, as it does in many a container. For its whole life.

    Raises Unmeasurable where that cannot be arranged.
    """
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None or sys.platform != "linux":
        raise Unmeasurable(f"the numbers of process_vm_* on {sys.platform}, {platform.machine()}, are not known here")
    instructions = (_Instruction * 5)(
        _Instruction(_LOAD_WORD, 0, 0, 0),  # the system call's number
        _Instruction(_JUMP_IF_EQUAL, 2, 0, numbers[0]),
        _Instruction(_JUMP_IF_EQUAL, 1, 0, numbers[1]),
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _FAIL_WITH | _EPERM),
    )
    program = _Program(len(instructions), instructions)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    rest = (ctypes.c_ulong(0),) * 3
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *rest) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), *rest[1:]
    ):
        raise Unmeasurable(f"no seccomp filter: {os.strerror(ctypes.get_errno())}")
