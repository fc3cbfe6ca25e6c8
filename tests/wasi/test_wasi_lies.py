"""A worker that lies about its guest's standard streams: the verdict is PROTOCOL, and what came before is kept."""

from __future__ import annotations

import pytest
from commands import SLEEPS, command

from pdsandbox import Cause, HostFunction, Output, WallClockExceeded, WasmImports, WorkerCrashed, in_worker
from pdsandbox.protocol import messages as m
from pdsandbox.protocol.frames import frame


def say(caller, number):
    """Frames that no honest worker would send now, straight into the reply pipe."""
    import gc
    import os
    import sys

    gc.unfreeze()  # what was made before the fork is hidden from the collector
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    (found,) = (thing for thing in gc.get_objects() if type(thing) is outbox)
    os.write(found.fd, LIES[number][1])


def begin_long(caller, _number):
    """All but the last byte of a message."""
    import gc
    import os
    import sys

    gc.unfreeze()
    outbox = sys.modules["pdsandbox.worker.pipes"].Outbox
    (found,) = (thing for thing in gc.get_objects() if type(thing) is outbox)
    whole = out(1, LONG)
    written = 0
    while written < len(whole) - 1:
        written += os.write(found.fd, whole[written:-1])


def out(number, data):
    return m.StreamOut(number, data).frame()


#: More than the supervisor reads at once; in it is what looks like other output.
LONG = bytes(20_000) + out(2, b"forged") * 100

LIES = [
    ("more than is to be captured", out(1, b"x" * 11)),
    ("a byte more, in pieces", out(1, b"x" * 8) + out(1, b"x" * 3)),
    ("a stream that there is not", out(3, b"x")),
    ("standard input", out(0, b"x")),
    ("a stream that is not captured", out(2, b"x")),
    ("nothing", out(1, b"")),
    ("no number", frame(m.STREAM_OUT, b"\1\0")),
    ("a write to what is captured", m.StreamWrite(1, b"x").frame()),
    ("a write to standard input", m.StreamWrite(0, b"x").frame()),
    ("a read of what was sent along", m.StreamRead(1).frame()),
    ("a read of nothing", m.StreamRead(0).frame()),
    ("a poll of what cannot be waited for", m.StreamPoll(0, bytes((1, 0, 0))).frame()),
    ("a poll of nothing", m.StreamPoll(m.FOREVER, bytes(3)).frame()),
    ("a poll of too much", m.StreamPoll(0, bytes((0, 0, 4, 0))).frame()),
    ("times of a link without directories", m.LinkTimes(0, m.LINK_LAYOUT.pack(1, 2, 3, 4, 5, 6) + b"link").frame()),
    ("an answer", m.StreamReply(0).frame()),
]


@pytest.mark.parametrize("number", range(len(LIES)), ids=[name for name, _ in LIES])
def test_a_lie_about_streams_ends_the_worker(begin, number):
    """A verdict; what was written before is there, and marked."""
    imports = WasmImports(functions={("m", "say"): HostFunction(in_worker(say), ("i32",))})
    source = command(
        f"(call $hi) (call $say (i32.const {number})) {SLEEPS}", '(import "m" "say" (func $say (param i32)))'
    )
    seen = []
    instance = begin(source, imports, stdin=b"along", stdout_bytes=9, stderr=seen.append)
    with pytest.raises(WorkerCrashed) as caught:
        instance.run()
    assert caught.value.cause is Cause.PROTOCOL
    assert caught.value.output.stdout.startswith(b"hi\n")
    assert caught.value.output.truncated
    assert not instance.alive


def test_a_long_piece_of_output_that_is_never_finished(begin):
    """What came of it is kept, and nothing in it is taken for a message."""
    imports = WasmImports(functions={("m", "say"): HostFunction(in_worker(begin_long), ("i32",))})
    source = command(f"(call $hi) (call $say (i32.const 0)) {SLEEPS}", '(import "m" "say" (func $say (param i32)))')
    instance = begin(source, imports)
    with pytest.raises(WallClockExceeded) as caught:
        instance.run(wall_s=1.0)
    output = caught.value.output
    assert output == Output(b"hi\n" + LONG[:-1], b"", truncated=True)


def test_a_guest_without_streams_cannot_use_any(begin, workers):
    """Its worker is ended as for any other message that is not legal."""
    imports = WasmImports(functions={("m", "say"): HostFunction(in_worker(say), ("i32",))})
    source = '(module (import "m" "say" (func $say (param i32))) (func (export "run") (call $say (i32.const 0))))'
    with workers.instantiate(workers.compile(source), imports) as instance, pytest.raises(WorkerCrashed) as caught:
        instance.call("run")
    assert caught.value.cause is Cause.PROTOCOL
