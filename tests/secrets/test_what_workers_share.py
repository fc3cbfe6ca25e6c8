"""What all workers of one supervisor have in common, being forks of one process, and what they do not.

The first test holds no promise: it keeps THREAT_MODEL.md honest about what a leak in one worker tells of the others.
"""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from pdsandbox import HostFunction, Supervisor, WasmImports, in_worker

GUEST = """(module (import "env" "tell" (func $tell (param i32))) (memory (export "memory") 1)
  (func (export "tell") (call $tell (i32.const 0))))"""


def _tell(caller, at):
    """Addresses of a library's data, of Python's, the stack's canary, a hash; and what is drawn at random.

    Not of a function: in a Python that is not position-independent, as Debian's, some lie at the same place everywhere.
    """
    import random

    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_ulong
    here = libc.pthread_self()
    canary = ctypes.c_uint64.from_address(here + 0x28).value  # %fs:0x28, x86_64
    facts = (here, id(sys), canary, hash("a string") & 0xFFFFFFFF)
    text = b"".join(fact.to_bytes(8, "little") for fact in facts)
    caller.memory_write(at, text + os.urandom(16) + random.randbytes(16))


def told(host):
    """(what is shared, random by the kernel, random by Python) of a new worker."""
    imports = WasmImports(functions={("env", "tell"): HostFunction(in_worker(_tell), ("i32",))})
    with host.instantiate(host.compile(GUEST), imports) as instance:
        instance.call("tell")
        data = instance.memory_read(0, 64)
    return data[:32], data[32:48], data[48:]


@pytest.fixture
def one():
    with Supervisor(spares=0, hardening="off") as host:  # importing `random` in the worker reads files
        yield host


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="where the canary lies is the machine's")
def test_workers_share_addresses_canary_and_hash_seed(one):
    """Those of one supervisor do, and those of two supervisors do not."""
    first, second = told(one)[0], told(one)[0]
    assert first == second
    with Supervisor(spares=0, hardening="off") as other:
        third = told(other)[0]
    for at, what in enumerate(("a library's data", "Python's heap", "the canary", "the hash seed")):
        assert first[8 * at : 8 * at + 8] != third[8 * at : 8 * at + 8], what
    assert first[16:24] != bytes(8), "there is a canary"


def test_workers_do_not_share_randomness(one):
    """Each draws numbers of its own, from the kernel and from Python's generator."""
    drawn = [told(one)[1:] for _ in range(4)]
    assert len({kernel for kernel, _ in drawn}) == 4
    assert len({python for _, python in drawn}) == 4
