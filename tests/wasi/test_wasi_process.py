"""Arguments, environment, clocks, random numbers, exits; and what a bad pointer ends in, for every call."""

from __future__ import annotations

import time

import pytest
from probe import SIZE

from pdsandbox import Clock, Dir
from pdsandbox.runtime.wasi import abi

NS = 10**9


def strings(probe, sizes, get):
    """What args_get or environ_get puts into memory, by its pointers."""
    assert probe.call(sizes, 0x100, 0x104) == 0
    count, size = probe.u32(0x100), probe.u32(0x104)
    assert probe.call(get, 0x200, 0x8000) == 0
    pointers = [probe.u32(0x200 + 4 * i) for i in range(count)]
    buffer = probe.read(0x8000, size)
    assert buffer.count(b"\0") == count
    return [buffer[at - 0x8000 : buffer.index(b"\0", at - 0x8000)] for at in pointers]


def test_arguments_and_environment_arrive(probe):
    """In order, in UTF-8, with NULs after each."""
    p = probe(args=("prog", "", "ä 1"), env={"A": "1", "B": "x=y", "C": ""})
    assert strings(p, "args_sizes_get", "args_get") == [b"prog", b"", "ä 1".encode()]
    assert strings(p, "environ_sizes_get", "environ_get") == [b"A=1", b"B=x=y", b"C="]


def test_nothing_is_granted_by_default(probe):
    """No argument, no variable, no directory; standard input is at its end."""
    p = probe()
    assert strings(p, "args_sizes_get", "args_get") == []
    assert strings(p, "environ_sizes_get", "environ_get") == []
    assert p.call("fd_prestat_get", 3, 0x100) == abi.BADF
    assert p.fd_read(0) == (0, b"")


def now(probe, clock):
    assert probe.call("clock_time_get", clock, 0, 0x100) == 0
    return probe.u64()


def test_the_real_clocks_are_the_real_time(probe):
    """Since 1970, and monotonic; the CPU's time is not told."""
    p = probe()
    before = time.time_ns()
    assert before <= now(p, abi.REALTIME) <= time.time_ns()
    first = now(p, abi.MONOTONIC)
    assert first <= now(p, abi.MONOTONIC) < 3600 * NS
    assert [p.call("clock_time_get", clock, 0, 0x100) for clock in (2, 3, 4)] == [abi.BADF, abi.BADF, abi.INVAL]
    for clock in (0, 1):
        assert p.call("clock_res_get", clock, 0x100) == 0
        assert 0 < p.u64() <= NS


def test_a_frozen_clock_stands_still(probe):
    """However often it is looked at."""
    p = probe(clock=Clock(start_ns=123))
    assert [now(p, clock) for clock in (0, 0, 1, 1)] == [123, 123, 0, 0]


def test_a_stepped_clock_moves_with_each_look(probe):
    """Both clocks go together; nothing overflows."""
    p = probe(clock=Clock(start_ns=1000, step_ns=10))
    assert [now(p, clock) for clock in (0, 0, 1, 0)] == [1000, 1010, 20, 1030]
    assert p.call("clock_res_get", 0, 0x100) == 0
    assert p.u64() == 10
    assert now(probe(clock=Clock(2**64 - 1, 1)), 0) == 2**64 - 1


def drawn(probe, length=64):
    assert probe.call("random_get", 0x8000, length) == 0
    return probe.read(0x8000, length)


def test_two_instances_draw_different_numbers(probe):
    """And one draws different ones each time."""
    first, second = probe(), probe()
    assert len({drawn(first), drawn(first), drawn(second), drawn(second)}) == 4


def test_the_same_seed_gives_the_same_numbers(probe):
    """Another seed gives others."""
    runs = [[drawn(p), drawn(p, 7), drawn(p)] for p in (probe(random_seed=s) for s in (5, 5, 6))]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][2]
    assert not set(runs[0]) & set(runs[2])


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 150_000])
def test_random_numbers_fill_the_buffer_and_no_more(probe, length):
    """Also what is drawn in pieces."""
    p = probe(random_seed=1)
    p.write(0x8000, bytes(length + 8))
    assert len(drawn(p, length)) == length
    assert p.read(0x8000 + length, 8) == bytes(8)
    if length > 16:
        assert p.read(0x8000 + length - 16, 16) != bytes(16)


@pytest.mark.parametrize("code", [0, 1, 125, 126, 255, 2**31, 2**32 - 1])
def test_every_exit_code_passes(probe, code):
    """All 32 bits."""
    assert probe().call("proc_exit", code) == f"exit {code}"


def test_signals_and_sockets_do_not_exist(probe):
    """And yielding is nothing to be waited for."""
    p = probe()
    assert [p.call("proc_raise", signal) for signal in (0, 30, 31)] == [abi.NOTSUP, abi.NOTSUP, abi.INVAL]
    assert p.call("sched_yield") == 0
    for name in ("sock_accept", "sock_recv", "sock_send", "sock_shutdown"):
        zeros = [0] * (len(abi.SIGNATURES[name].params) - 1)
        assert [p.call(name, fd, *zeros) for fd in (0, 9)] == [abi.NOTSOCK, abi.BADF]


# Each call with good arguments, its pointers marked; a pointer's length is what follows it where that is a length.
P = object()
GOOD = {
    "args_get": (P, P),
    "args_sizes_get": (P, P),
    "environ_get": (P, P),
    "environ_sizes_get": (P, P),
    "clock_res_get": (0, P),
    "clock_time_get": (0, 0, P),
    "fd_fdstat_get": (3, P),
    "fd_filestat_get": (3, P),
    "fd_pread": (4, P, 1, 0, P),
    "fd_prestat_get": (3, P),
    "fd_prestat_dir_name": (3, P, 1),
    "fd_pwrite": (4, P, 1, 0, P),
    "fd_read": (4, P, 1, P),
    "fd_readdir": (3, P, 100, 0, P),
    "fd_seek": (4, 0, 0, P),
    "fd_tell": (4, P),
    "fd_write": (4, P, 1, P),
    "path_create_directory": (3, P, 1),
    "path_filestat_get": (3, 0, P, 1, P),
    "path_filestat_set_times": (3, 0, P, 1, 0, 0, 0),
    "path_link": (3, 0, P, 1, 3, P, 1),
    "path_open": (3, 0, P, 1, 0, 0, 0, 0, P),
    "path_readlink": (3, P, 1, P, 10, P),
    "path_remove_directory": (3, P, 1),
    "path_rename": (3, P, 1, 3, P, 1),
    "path_symlink": (P, 1, 3, P, 1),
    "path_unlink_file": (3, P, 1),
    "poll_oneoff": (P, P, 1, P),
    "random_get": (P, 10),
}
WITHOUT = (
    "fd_advise fd_allocate fd_close fd_datasync fd_fdstat_set_flags fd_fdstat_set_rights fd_filestat_set_size "
    "fd_filestat_set_times fd_renumber fd_sync proc_exit proc_raise sched_yield sock_accept sock_recv sock_send "
    "sock_shutdown"
)
POINTERS = [(name, i) for name, args in GOOD.items() for i, arg in enumerate(args) if arg is P]


def test_every_call_is_listed():
    """Those with a pointer that is looked at, and those without; sockets fail before they look."""
    assert sorted([*GOOD, *WITHOUT.split()]) == sorted(abi.SIGNATURES)


@pytest.mark.parametrize(("name", "bad"), POINTERS)
def test_every_pointer_is_checked(probe, tmp_path, name, bad):
    """Just inside nothing happens to the guest; a byte beyond, far beyond, and wrapped around it is ended."""
    (tmp_path / "x").write_bytes(b"data")
    p = probe(args=("p",), env={"A": "1"}, dirs=[Dir(tmp_path, "/", "rw")])
    assert p.open("x", rights=abi.rights("fd_read fd_write")) == (0, 4)
    p.write(0x40, b"x" * 8)

    def call(at):
        # Good pointers lead to "x", to an empty iovec, and to a clock that is due at once.
        args = [0x800 + 0x100 * i if arg is P else arg for i, arg in enumerate(GOOD[name])]
        for i, arg in enumerate(GOOD[name]):
            if arg is P:
                p.write(args[i], b"x" if name.startswith("path_") else bytes(64))
        args[bad] = at
        return p.call(name, *args)

    for at in (SIZE, SIZE + 8, 2**31, 2**32 - 8):
        assert call(at) == "trap", at
    p.write(SIZE - 64, bytes(64))
    assert call(SIZE - 64) != "trap" or (name == "fd_readdir" and bad == 1)


@pytest.mark.parametrize("name", ["fd_read", "fd_write", "fd_pread", "fd_pwrite"])
def test_what_an_iovec_points_at_is_checked(probe, tmp_path, name):
    """Each of them, before any is used."""
    (tmp_path / "x").write_bytes(b"data")
    more = (0,) if name.startswith("fd_p") else ()
    p = probe(dirs=[Dir(tmp_path, "/", "rw")])
    assert p.open("x", rights=abi.rights("fd_read fd_write")) == (0, 4)
    for ranges in ([(SIZE - 1, 2)], [(0x8000, 1), (SIZE, 1)], [(0xFFFFFFFF, 0xFFFFFFFF)], [(0x8000, 2**32 - 1)]):
        assert p.call(name, 4, *p.iovecs(*ranges), *more, 0x100) == "trap"
        assert p.call(name, 4, SIZE - 8, 2, *more, 0x100) == "trap"
        assert p.call(name, 4, 0x200, 2**32 - 1, *more, 0x100) == "trap"
    assert (tmp_path / "x").read_bytes() == b"data"


def test_pointers_to_numbers_are_aligned(probe):
    """As the specification has it, and wasmtime."""
    p = probe()
    assert [p.call("clock_time_get", 0, 0, at) for at in (0x100, 0x104, 0x101)] == [0, "trap", "trap"]
    assert [p.call("fd_write", 1, at, 0, 0x100) for at in (0x200, 0x201)] == [0, 0]
    assert [p.call("fd_write", 1, at, 1, 0x100) for at in (0x200, 0x201)] == [0, "trap"]
    assert [p.call("random_get", at, 3) for at in (0x100, 0x101)] == [0, 0]


def test_the_instance_stays_usable_after_a_bad_pointer(probe):
    """It is the call that ends."""
    p = probe()
    assert p.call("random_get", SIZE, 1) == "trap"
    assert p.call("random_get", SIZE - 1, 1) == 0
