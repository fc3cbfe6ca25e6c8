"""A guest that hands every WASI call through, and the same guest under plain wasmtime, to compare them call by call."""

from __future__ import annotations

import struct

from pdsandbox import GuestExit, MemoryAccessError, Trap
from pdsandbox.runtime.wasi import abi

PAGES = 4
SIZE = PAGES * 65536


def _source() -> str:
    imports, functions = [], []
    for name, type_ in abi.SIGNATURES.items():
        params = f"(param {' '.join(type_.params)})" if type_.params else ""
        results = "(result i32)" if type_.results else ""
        imports.append(f'(import "{abi.MODULE}" "{name}" (func ${name} {params} {results}))')
        gets = " ".join(f"(local.get {i})" for i in range(len(type_.params)))
        functions.append(f'(func (export "{name}") {params} {results} (call ${name} {gets}))')
    return f'(module {" ".join(imports)} (memory (export "memory") {PAGES}) {" ".join(functions)})'


SOURCE = _source()


class Probe:
    """Calls by name, with plain integers; memory as bytes. What ends a call gives "trap" or "exit N" as errno.

    Scratch: strings are put at 0x1000 and 0x2000, results are asked for at 0x100.
    """

    OUT = 0x100

    def call(self, name, *args):
        raise NotImplementedError

    def read(self, offset, length):
        raise NotImplementedError

    def write(self, offset, data):
        raise NotImplementedError

    def put(self, text, at=0x1000):
        """(address, length) of the text, put into memory."""
        data = text.encode() if isinstance(text, str) else text
        self.write(at, data)
        return at, len(data)

    def u32(self, at=OUT):
        return struct.unpack("<I", self.read(at, 4))[0]

    def u64(self, at=OUT):
        return struct.unpack("<Q", self.read(at, 8))[0]

    def iovecs(self, *ranges, at=0x200):
        """(address, count) of an array of (address, length)."""
        self.write(at, b"".join(struct.pack("<II", *each) for each in ranges))
        return at, len(ranges)

    def open(self, path, *, fd=3, follow=1, oflags=0, rights=None, fdflags=0):
        """(errno, descriptor)"""
        rights = abi.rights("fd_read fd_readdir fd_seek") if rights is None else rights
        code = self.call("path_open", fd, follow, *self.put(path), oflags, rights, rights, fdflags, self.OUT)
        return code, self.u32() if code == 0 else None

    def pwrite(self, fd, data, offset):
        at, length = self.put(data, 0x8000)
        code = self.call("fd_pwrite", fd, *self.iovecs((at, length)), offset, self.OUT)
        return code, self.u32() if code == 0 else None

    def fd_write(self, fd, data):
        at, length = self.put(data, 0x8000)
        code = self.call("fd_write", fd, *self.iovecs((at, length)), self.OUT)
        return code, self.u32() if code == 0 else None

    def fd_read(self, fd, length=1000):
        code = self.call("fd_read", fd, *self.iovecs((0x8000, length)), self.OUT)
        return code, self.read(0x8000, self.u32()) if code == 0 else None

    def fd_pread(self, fd, offset, length=1000):
        code = self.call("fd_pread", fd, *self.iovecs((0x8000, length)), offset, self.OUT)
        return code, self.read(0x8000, self.u32()) if code == 0 else None

    def readdir(self, fd, *, size=4096, cookie=0):
        """(errno, [(next, name, type), …], bytes used)"""
        code = self.call("fd_readdir", fd, 0x8000, size, cookie, self.OUT)
        if code:
            return code, None, None
        used = self.u32()
        raw, entries = self.read(0x8000, used), []
        while len(raw) >= abi.dirent.size:
            following, _ino, length, kind = abi.dirent.unpack_from(raw)
            name = raw[abi.dirent.size : abi.dirent.size + length]
            entries.append((following, name, kind))
            raw = raw[abi.dirent.size + length :]
        return code, entries, used

    def filestat(self, name, *args):
        """(errno, (filetype, nlink, size, atim, mtim)) of fd_filestat_get or path_filestat_get."""
        code = self.call(name, *args, self.OUT)
        if code:
            return code, None
        _dev, _ino, kind, nlink, size, atim, mtim, _ctim = abi.filestat.unpack(self.read(self.OUT, 64))
        return code, (kind, nlink, size, atim, mtim)

    def fdstat(self, fd):
        code = self.call("fd_fdstat_get", fd, self.OUT)
        return code, abi.fdstat.unpack(self.read(self.OUT, 24)) if code == 0 else None


class Ours(Probe):
    """In this process, on our own implementation."""

    def __init__(self, host, wasi):
        self.instance = host.instantiate(host.compile(SOURCE), wasi=wasi)

    def call(self, name, *args):
        try:
            results = self.instance.call(name, [_signed(a, t) for a, t in zip(args, _types(name), strict=True)])
        except GuestExit as exc:
            return f"exit {exc.exit_code}"
        except (MemoryAccessError, Trap):
            return "trap"
        return results[0].value if results else None

    def read(self, offset, length):
        return self.instance.memory_read(offset, length)

    def write(self, offset, data):
        self.instance.memory_write(offset, data)


class Plain(Probe):
    """Plain wasmtime, its own WASI, in the process that `server` serves."""

    def __init__(self, server, dirs):
        """dirs: (host path, guest path, whether it may be written)"""
        self._ask = server
        self._number = server("make", SOURCE, dirs)

    def close(self):
        self._ask("close", self._number)

    def call(self, name, *args):
        return self._ask("call", self._number, name, [_signed(a, t) for a, t in zip(args, _types(name), strict=True)])

    def read(self, offset, length):
        return self._ask("read", self._number, offset, length)

    def write(self, offset, data):
        self._ask("write", self._number, offset, data)


def _types(name):
    return abi.SIGNATURES[name].params


def _signed(value, type_):
    bits = 32 if type_ == "i32" else 64
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value
