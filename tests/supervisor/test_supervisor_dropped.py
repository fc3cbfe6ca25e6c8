"""An instance that nobody has any more is gone at once, whatever it was used for: its worker does not wait for a
garbage collection, which a program that makes few objects may not see for minutes."""

from __future__ import annotations

import gc
import weakref

import pytest
from supervising import make_guest, wait_process_ends

from pdsandbox import I32, WasmError, receipts


class Once:
    """A number that raises when it is looked at for the first time."""

    def __init__(self):
        self.looked = False

    def __index__(self):
        if not self.looked:
            self.looked = True
            raise KeyError("not yet")
        return 20


class Never:
    def __index__(self):
        raise KeyError("never")


def _fail(_value):
    raise KeyError("a host function's")


def _in_receipts(use):
    with receipts():
        use()


USES = {
    "nothing": lambda _instance: None,
    "call": lambda instance: instance.call("add", [1, 2]),
    "func": lambda instance: instance.func("add")(1, 2),
    "a func that is only made": lambda instance: instance.func("add"),
    "call_many": lambda instance: instance.call_many("add", [[1, 2], [3, 4]]),
    "numbers beside values": lambda instance: instance.call("add", [I32(1), 2]),
    "rows of numbers beside values": lambda instance: instance.call_many("add", [[I32(1), 2], [3, 4]]),
    "a wrong type": lambda instance: instance.call("add", ["1", 2]),
    "a wrong type, plain": lambda instance: instance.func("add")("1", 2),
    "a wrong type in a row": lambda instance: instance.call_many("add", [["1", 2]]),
    "a wrong count": lambda instance: instance.call("add", [1]),
    "out of range": lambda instance: instance.call("add", [1 << 40, 2]),
    "an argument that raises": lambda instance: instance.call("add", [Never(), 2]),
    "an argument that raises once": lambda instance: instance.call("add", [Once(), 2]),
    "an argument of a row that raises once": lambda instance: instance.call_many("add", [[Once(), 2]]),
    "a trap": lambda instance: instance.call("trap"),
    "a trap that leaves a receipt": lambda instance: _in_receipts(lambda: instance.call("trap")),
    "a wrong type that leaves a receipt": lambda instance: _in_receipts(lambda: instance.call("add", ["1", 2])),
    "no such export": lambda instance: instance.call("none"),
    "no fuel": lambda instance: instance.call("add", [1, 2], fuel=-1),
    "memory": lambda instance: (instance.memory_write(0, b"x"), instance.memory_read(1 << 20, 1)),
}


def dropped(instance, use):
    """Use it three times, drop it; its worker ends."""
    for _ in range(3):
        try:
            use(instance)
        except (WasmError, KeyError):
            pass
    kept, pid = weakref.ref(instance), instance.pid
    gc.disable()
    try:
        del instance
        assert kept() is None
    finally:
        gc.enable()
    wait_process_ends(pid)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_dropped_instance_is_gone_at_once(host, use):
    """After any use."""
    dropped(make_guest(host), use)


@pytest.mark.parametrize("ask", [_fail, lambda _value: "text", lambda _value: Never(), lambda _value: Once()])
def test_after_a_host_function_that_failed(host, ask):
    """Also where it returned what it must not."""
    dropped(make_guest(host, ask=ask), lambda instance: instance.call("ask", [1]))


def test_a_function_keeps_its_instance(host):
    """As long as there is `func("add")`, it can be called."""
    instance = make_guest(host)
    add, pid = instance.func("add"), instance.pid
    del instance
    assert [add(1, 2), add(3, 4)] == [3, 7]
    del add
    wait_process_ends(pid)
