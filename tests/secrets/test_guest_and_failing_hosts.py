"""A host function that fails tells the guest nothing: not even that it failed, because the guest does not go on."""

from __future__ import annotations

import os
import sys

import pytest
from scanning import labels, why_not

from pdsandbox import (
    CallError,
    Cause,
    HostFunction,
    MemoryAccessError,
    Supervisor,
    Trap,
    WasmError,
    WasmImports,
    in_worker,
)
from pdsandbox.protocol import messages as m
from pdsandbox.supervisor.channel import Channel

TYPE = (("i32",), ("i32", "i64", "f32", "f64"))
PAGE = 65536
MARK = "0123456789abcdef0123456789abcdef"


class Failing(Exception):
    """With all that an exception may carry."""


def _path():
    return f"/srv/{MARK}:raised;/{os.getpid()}/{id(sys)}"


def _fail(caller, how):
    """Every way to fail: by raising, by a wrong answer, by touching what is not there, after having tried."""
    if how == 0:
        raise FileNotFoundError(2, "No such file", _path())
    if how == 1:
        raise Failing(_path(), caller, dict(os.environ))
    if how == 2:
        raise SystemExit(_path())
    if how == 3:
        return (1, 2, 3.0)
    if how == 4:
        return (0x41414141, 0x4242424242424242, 1.5, _path())
    if how == 5:
        return (0x41414141, 2**64, 1.5, 2.5)
    if how == 6:
        return _path()
    if how == 7:
        caller.memory_read(65000, 1000)
    if how == 8:
        caller.memory_write(65000, b"A" * 1000)
    if how == 9:
        caller.memory_write(-8, b"A" * 16)
    return (1, 2, 3.0, 4.0)


HOWS = range(10)
NOT_THERE = (7, 8, 9)


@pytest.fixture(params=["here", "in the worker"])
def guest(request, instantiate, wat):
    """An instance of `keeps_what_it_gets`; its host function fails as it is asked to."""
    fn = in_worker(_fail) if request.param == "in the worker" else _fail
    return instantiate(wat("keeps_what_it_gets"), WasmImports(functions={("env", "callback"): HostFunction(fn, *TYPE)}))


def failed(instance, how):
    """The call ends, as it must."""
    with pytest.raises(WasmError) as caught:
        instance.call("run", [how])
    if how in NOT_THERE:
        assert type(caught.value) is MemoryAccessError
    else:
        assert (type(caught.value), caught.value.cause) == (CallError, Cause.HOST_FUNCTION)


@pytest.mark.parametrize("how", HOWS)
def test_nothing_reaches_the_guest(guest, how):
    """No handler runs, no result is seen, memory and globals are as they were, and so are the next call's slots."""
    before = guest.memory_read(0, PAGE)
    for _ in range(3):
        failed(guest, how)
        assert guest.memory_read(0, PAGE) == before == bytes(PAGE)
        assert guest.func("kept")() == (0, 0, 0)
        assert guest.func("after")() == (0, 0, 0.0, 0.0)


def test_the_search_works(guest):
    """A function that does not fail is heard."""
    guest.call("run", [99])
    assert guest.func("kept")() == (1, 2, 5)
    assert guest.memory_read(4096, 16) != bytes(16)


def test_an_exceptions_text_is_nowhere_in_the_worker(wat):
    """Not even native code in the worker could find what a host function raised in the service."""
    with Supervisor(spares=0) as host:
        imports = WasmImports(functions={("env", "callback"): HostFunction(_fail, *TYPE)})
        instance = host.instantiate(host.compile(wat("keeps_what_it_gets")), imports)
        if reason := why_not(instance.pid):
            pytest.skip(reason)
        for how in HOWS:
            failed(instance, how)
        assert labels(instance.pid, MARK) == set()
        instance.memory_write(0, f"{MARK}:written;".encode())
        assert labels(instance.pid, MARK) == {"written"}, "the search works"


@pytest.fixture
def sent(monkeypatch):
    """Every frame that any supervisor here sends to any worker, from now on."""
    frames = []
    send = Channel.send

    def recording(self, kind, frame, watch):
        frames.append((kind, bytes(frame)))
        send(self, kind, frame, watch)

    monkeypatch.setattr(Channel, "send", recording)
    return frames


def test_a_failure_is_one_frame_without_content(wat, sent):
    """Whatever a host function raised, the worker is told HOST_FAIL, always the same eight bytes."""
    with Supervisor(spares=0) as host:
        imports = WasmImports(functions={("env", "callback"): HostFunction(_fail, *TYPE)})
        instance = host.instantiate(host.compile(wat("keeps_what_it_gets")), imports)
        for how in HOWS:
            failed(instance, how)
    told = {frame for kind, frame in sent if kind == m.HOST_FAIL}
    assert told == {m.HostFail().frame()}
    assert len(*told) == 8
    assert not [frame for _, frame in sent if MARK.encode() in frame]


def test_what_a_worker_says_is_told_to_no_other(sent):
    """One guest's names, its trap and its worker's words reach the host function of another; not that other guest."""
    name = f"{MARK}:name;"
    shouts = f"""(module (import "env" "raise" (func $raise))
      (func $n (@name "{name}") (export "trap") unreachable) (func (export "raise") (call $raise)))"""
    asks = """(module (import "env" "ask" (func $ask (param i32))) (memory (export "memory") 1)
      (func (export "ask") (param i32) (call $ask (local.get 0))))"""

    def raises(_caller):
        raise ValueError(f"{MARK}:text;")

    with Supervisor(spares=0) as host:
        functions = {("env", "raise"): HostFunction(in_worker(raises))}
        one = host.instantiate(host.compile(shouts), WasmImports(functions=functions))
        functions = {("env", "ask"): HostFunction(lambda _caller, how: one.call(("trap", "raise")[how]), ("i32",))}
        other = host.instantiate(host.compile(asks), WasmImports(functions=functions))
        first = len(sent)
        for how, cls in ((0, Trap), (1, CallError)):
            with pytest.raises(CallError) as caught:
                other.call("ask", [how])
            original = caught.value.__cause__
            assert type(original) is cls
            assert MARK in f"{original.frames} {original.__cause__}", "the service was told"
        assert not [frame for _, frame in sent[first:] if MARK.encode() in frame]
        assert other.memory_read(0, PAGE) == bytes(PAGE)
        if why_not(other.pid) is None:
            assert labels(other.pid, MARK) == set()
