"""Call by call, the same errno as plain wasmtime's own WASI. Where it differs on purpose, the last test says how."""

from __future__ import annotations

import os

import pytest

from pdsandbox.runtime.wasi import abi

READ = abi.rights("fd_read fd_readdir")
WRITE = abi.rights("fd_write")
PATHS = [
    *(
        "",
        ".",
        "..",
        "/",
        "/etc",
        "f",
        "f/",
        "sub",
        "sub/",
        "sub//",
        "sub/.",
        "sub/./",
        "sub/..",
        "sub/../f",
        "sub/../..",
    ),
    *("abs", "lf", "lf/", "up", "ls", "ls/", "ls/inner", "ls/..", "dang", "dang/", "loop", "loop/x", "chain"),
    *("no", "no/", "no/x", "f/x", "f/..", "a\0b", "./f", "sub/inner/..", "x" * 255, "x" * 256, "deep/up"),
]


def fill(root):
    """One of each kind."""
    (root / "f").write_bytes(b"hello")
    (root / "sub").mkdir()
    (root / "sub" / "inner").write_bytes(b"inner")
    (root / "empty").mkdir()
    (root / "deep").mkdir()
    for name, target in {
        "abs": "/etc/passwd",
        "lf": "f",
        "up": "../outside",
        "ls": "sub",
        "dang": "nope",
        "loop": "loop",
        "chain": "lf",
        "deep/up": "../f",
    }.items():
        os.symlink(target, root / name)


def opens(probe, path):
    """Every way to open it; what was opened is closed again."""
    seen = []
    for oflags, rights, follow in [
        *((0, READ, 1), (0, READ, 0), (abi.O_DIRECTORY, READ, 1), (abi.O_DIRECTORY, READ, 0), (0, WRITE, 1)),
        *((0, READ | WRITE, 0), (abi.O_CREAT | abi.O_EXCL, WRITE, 1), (abi.O_CREAT | abi.O_DIRECTORY, READ, 1)),
        *((abi.O_CREAT, READ | WRITE, 1), (abi.O_TRUNC, WRITE, 1)),
    ]:
        code, fd = probe.open(path, oflags=oflags, rights=rights, follow=follow)
        kind = None
        if fd is not None:
            kind = probe.fdstat(fd)
            probe.call("fd_close", fd)
        seen.append((oflags, rights, follow, code, kind))
    return seen


def asks(probe, path):
    """Everything that changes nothing."""
    link = probe.call("path_readlink", 3, *probe.put(path), 0x8000, 100, 0x100)
    return [
        *(shape(probe.filestat("path_filestat_get", 3, follow, *probe.put(path))) for follow in (0, 1)),
        (link, probe.read(0x8000, probe.u32()) if link == 0 else None),
    ]


def shape(answer):
    """(errno, type and size): times differ, and how a file system counts a directory's size and links."""
    code, found = answer
    return (code, found and (found[0], found[2] if found[0] != abi.DIRECTORY else None))


def changes(probe, path):
    """Everything that makes, moves or removes a name."""
    return [
        probe.call("path_create_directory", 3, *probe.put(path)),
        probe.call("path_symlink", *probe.put("f"), 3, *probe.put(path, 0x2000)),
        probe.call("path_link", 3, 0, *probe.put(path), 3, *probe.put("linked", 0x2000)),
        probe.call("path_link", 3, 0, *probe.put("f"), 3, *probe.put(path, 0x2000)),
        probe.call("path_filestat_set_times", 3, 1, *probe.put(path), 10, 10**9, 5),
        probe.call("path_filestat_set_times", 3, 0, *probe.put(path), 10, 10**9, 5),
        probe.call("path_rename", 3, *probe.put(path), 3, *probe.put("moved", 0x2000)),
        probe.call("path_rename", 3, *probe.put("moved"), 3, *probe.put(path, 0x2000)),
        probe.call("path_rename", 3, *probe.put("f"), 3, *probe.put(path, 0x2000)),
        path.endswith("/") or probe.call("path_remove_directory", 3, *probe.put(path)),
        probe.call("path_unlink_file", 3, *probe.put(path)),
    ]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_what_it_is_to_wasmtime(both, opener, path):
    """Opened, asked about, and changed in every way, on files and links of every kind."""
    ours, plain = both(fill)
    assert asks(ours, path) == asks(plain, path)
    assert opens(ours, path) == opens(plain, path)
    assert changes(ours, path) == changes(plain, path)


@pytest.mark.parametrize("path", [p for p in PATHS if "\0" not in p and len(p) < 256])
def test_reading_only_is_what_it_is_to_wasmtime(both, opener, path):
    """The same with a directory that was granted for reading: every change is refused."""
    ours, plain = both(fill, "ro")
    assert asks(ours, path) == asks(plain, path)
    assert opens(ours, path) == opens(plain, path)
    refused = changes(ours, path)
    assert refused == changes(plain, path)
    assert set(refused) <= {abi.PERM, True}


@pytest.mark.parametrize("target", ["", "f", "/abs", "../../out", "x" * 4095, "x" * 4096, "a\0b"])
def test_symbolic_links_may_say_what_wasmtime_lets_them(both, target):
    """Relative ones anything, because none is followed out."""
    ours, plain = both(fill)
    seen = [p.call("path_symlink", *p.put(target), 3, *p.put("new", 0x8000)) for p in (ours, plain)]
    assert seen[0] == seen[1]


KINDS = ["stdin", "stdout", "preopened", "directory", "read", "write", "both", "append", "nonblock", "none", "largest"]


def descriptors(probe):
    """One of each kind of descriptor."""
    return {
        "stdin": 0,
        "stdout": 1,
        "preopened": 3,
        "directory": probe.open("sub", oflags=abi.O_DIRECTORY)[1],
        "read": probe.open("f", rights=READ)[1],
        "write": probe.open("f", rights=WRITE)[1],
        "both": probe.open("f", rights=READ | WRITE)[1],
        "append": probe.open("f", rights=READ | WRITE, fdflags=abi.APPEND)[1],
        "nonblock": probe.open("f", rights=READ, fdflags=abi.NONBLOCK)[1],
        "none": 99,
        "largest": 2**32 - 1,
    }


def on_descriptor(p, fd):
    """Every call on a descriptor, in an order in which each can work."""
    data = p.put(b"data", 0x3000)
    nothing = p.iovecs((0x9000, 0))
    yield "fdstat", p.fdstat(fd)
    yield "filestat", shape(p.filestat("fd_filestat_get", fd))
    yield "prestat", (p.call("fd_prestat_get", fd, p.OUT), p.read(p.OUT, 8))
    yield "name", [p.call("fd_prestat_dir_name", fd, 0x9000, size) for size in (0, 1, 100)]
    yield "read nothing", p.call("fd_read", fd, *nothing, p.OUT)
    yield "pread nothing", p.call("fd_pread", fd, *nothing, 0, p.OUT)
    yield "read", p.fd_read(fd, 3) if fd else None
    yield "tell", (p.call("fd_tell", fd, p.OUT), p.u64())
    for offset, whence in (
        (1, 0),
        (-1, 0),
        (1, 1),
        (-100, 1),
        (-1, 2),
        (7, 2),
        (-100, 2),
        (2**63 - 1, 0),
        (2, 0),
    ):
        yield f"seek {offset} {whence}", (p.call("fd_seek", fd, offset, whence, p.OUT), p.u64())
    yield "pread", [p.fd_pread(fd, offset, 2) for offset in (0, 4, 5, 100, 2**63 - 1, 2**63, 2**64 - 1)]
    if fd != 1:
        yield "write", p.fd_write(fd, b"XY")
    yield "tell again", (p.call("fd_tell", fd, p.OUT), p.u64())
    yield "pwrite", [p.pwrite(fd, b"Z", offset) for offset in (0, 9, 2**63, 2**64 - 1)]
    yield "filestat again", shape(p.filestat("fd_filestat_get", fd))
    yield "size", [p.call("fd_filestat_set_size", fd, size) for size in (3, 20, 2**63, 2**64 - 1)]
    for flags in range(16):
        yield f"times {flags}", p.call("fd_filestat_set_times", fd, 10**9, 2 * 10**9 + 5, flags)
    yield "times far off", p.call("fd_filestat_set_times", fd, 2**32 * 10**9, 2**32 * 10**9, 5)
    yield "advise", [p.call("fd_advise", fd, 0, 10, advice) for advice in range(6)]
    yield "sync", (p.call("fd_sync", fd), p.call("fd_datasync", fd))
    for flags in (abi.APPEND, abi.NONBLOCK, abi.SYNC, abi.DSYNC, abi.RSYNC, 0):
        yield f"flags {flags}", (p.call("fd_fdstat_set_flags", fd, flags), p.fdstat(fd))
    yield "rights", p.call("fd_fdstat_set_rights", fd, READ, READ)
    yield "listing", [sorted(entry[1:] for entry in entries) if entries else entries for entries in [p.readdir(fd)[1]]]
    yield (
        "listing errno",
        [p.readdir(fd, size=size, cookie=cookie)[0] for size in (0, 10, 4096) for cookie in (0, 1, 99)],
    )
    yield "beneath it", p.open("inner", fd=fd)[0]
    yield "stat beneath it", p.filestat("path_filestat_get", fd, 1, *p.put("inner"))[0]
    yield "mkdir beneath it", p.call("path_create_directory", fd, *p.put("made"))
    yield "symlink beneath it", p.call("path_symlink", *p.put("t"), fd, *p.put("madelink", 0x2000))
    yield (
        "sockets",
        [
            p.call("sock_accept", fd, 0, p.OUT),
            p.call("sock_recv", fd, *nothing, 0, p.OUT, p.OUT + 8),
            p.call("sock_send", fd, *nothing, 0, p.OUT),
            *(p.call("sock_shutdown", fd, how) for how in range(4)),
        ],
    )
    yield "renumber to nothing", p.call("fd_renumber", fd, 77)
    yield "renumber to itself", p.call("fd_renumber", fd, fd)
    yield "close", (p.call("fd_close", fd), p.call("fd_close", fd), p.fdstat(fd))
    assert data


@pytest.mark.parametrize("mode", ["ro", "rw"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_descriptor_is_what_it_is_to_wasmtime(both, kind, mode):
    """Every call on every kind of descriptor, one after the other."""
    ours, plain = both(fill, mode)
    fds = [descriptors(p)[kind] for p in (ours, plain)]
    if fds == [None, None]:
        return  # not to be opened for writing
    assert fds[0] == fds[1]
    for mine, its in zip(on_descriptor(ours, fds[0]), on_descriptor(plain, fds[1]), strict=True):
        assert mine == its


def test_numbers_are_given_out_as_wasmtime_does(both):
    """The largest that was closed, else the next."""
    ours, plain = both(fill)
    for p in (ours, plain):
        for fd in (0, 2):
            p.call("fd_close", fd)
    seen = [[p.open("f")[1] for _ in range(4)] for p in (ours, plain)]
    assert seen[0] == seen[1] == [2, 0, 4, 5]
    assert [p.call("fd_renumber", 5, 1) for p in (ours, plain)] == [0, 0]
    assert [p.open("f")[1] for p in (ours, plain)] == [5, 5]


def test_a_listing_begins_at_any_cookie(both):
    """The same entries after each, and a full buffer where there is more."""
    ours, plain = both(fill)
    for p in (ours, plain):
        entries = p.readdir(3)[1]
        assert [entry[0] for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry[1] for entry in entries[:2]] == [b".", b".."]
        for cookie in range(len(entries) + 2):
            assert p.readdir(3, cookie=cookie)[1] == entries[cookie:]
        assert p.readdir(3, size=60)[2] == 60


def test_where_it_differs_it_does_so_on_purpose(both):
    """wasmtime ends the guest for a flag, an enumerated value or an exit code that it does not know, and cannot
    allocate. It removes no directory that is named with a slash at its end, and has positions that no file has.
    Here these are an errno, an exit code, and done as POSIX has it."""
    ours, plain = both(fill)
    bad = [
        *(
            ("clock_time_get", 4, 0, 0x100),
            ("clock_res_get", 4, 0x100),
            ("proc_raise", 31),
            ("fd_fdstat_set_flags", 3, 32),
        ),
        *(("fd_filestat_set_times", 3, 0, 0, 16), ("path_filestat_get", 3, 2, 0x1000, 1, 0x100)),
    ]
    assert [ours.call(*each) for each in bad] == [abi.INVAL] * len(bad)
    assert {plain.call(*each) for each in bad} == {"trap"}
    fds = [p.open("f", rights=WRITE)[1] for p in (ours, plain)]
    assert [p.call("fd_allocate", fd, 0, 1000) for p, fd in zip((ours, plain), fds, strict=True)] == [0, abi.NOTSUP]
    assert ours.filestat("fd_filestat_get", fds[0])[1][2] == 1000
    for p in (ours, plain):
        assert p.call("fd_seek", fds[0], 2**63 - 1, abi.SEEK_SET, 0x100) == 0
    assert [p.call("fd_seek", fds[0], 1, abi.SEEK_CUR, 0x100) for p in (ours, plain)] == [abi.INVAL, 0]
    assert [p.call("path_remove_directory", 3, *p.put("empty/")) for p in (ours, plain)] == [0, abi.INVAL]
    assert [p.call("proc_exit", 126) for p in (ours, plain)] == ["exit 126", "trap"]
