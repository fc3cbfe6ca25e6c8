"""Standard streams: given as bytes, descriptors, objects and functions; captured up to a cap."""

from __future__ import annotations

import io
import os
import pty
import select
import threading

import pytest

from pdsandbox import CallError, Cause, InstantiationError, Wasi
from pdsandbox.runtime.wasi import abi
from pdsandbox.streams import FdInput


@pytest.fixture
def pipe():
    """[read end, write end]; None in place of one that the test has closed."""
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        if fd is not None:
            os.close(fd)


def close(pipe, which):
    """One end of it. Its number may be somebody else's a moment later."""
    fd, pipe[which] = pipe[which], None
    os.close(fd)


def test_bytes_are_read_in_pieces_to_their_end(probe):
    """As large as the guest asks for, over several buffers."""
    p = probe(stdin=b"0123456789")
    assert p.fd_read(0, 4) == (0, b"0123")
    assert p.call("fd_read", 0, *p.iovecs((0x8000, 1), (0x9000, 0), (0x9000, 2)), 0x100) == 0
    assert (p.u32(), p.read(0x8000, 1), p.read(0x9000, 2)) == (3, b"4", b"56")
    assert [p.fd_read(0, 100) for _ in range(3)] == [(0, b"789"), (0, b""), (0, b"")]


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
def test_an_object_is_read(probe, wrap):
    """Through `read1`, where it has one: what is there is given at once."""
    p = probe(stdin=wrap(b"abc" * 50_000))
    taken = b""
    while data := p.fd_read(0, 60_000)[1]:
        taken += data
    assert taken == b"abc" * 50_000


def test_an_object_may_give_more_than_it_was_asked_for(probe):
    """It is kept for the next time."""

    class Generous:
        def __init__(self):
            self.answers = [b"0123456789", b""]

        def read(self, _most):
            return self.answers.pop(0)

    p = probe(stdin=Generous())
    assert [p.fd_read(0, 4)[1] for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def test_a_file_and_a_pipe_are_read(probe, tmp_path, pipe):
    """A file from where it stands; a pipe as it fills, and to its end."""
    (tmp_path / "f").write_bytes(b"0123456789")
    with (tmp_path / "f").open("rb") as file:
        file.read(2)
        assert probe(stdin=file).fd_read(0) == (0, b"23456789")
    p = probe(stdin=pipe[0])
    os.write(pipe[1], b"first")
    assert p.fd_read(0) == (0, b"first")
    os.write(pipe[1], b"second")
    close(pipe, 1)
    assert [p.fd_read(0) for _ in range(2)] == [(0, b"second"), (0, b"")]


def test_a_read_waits_even_on_what_somebody_made_non_blocking(probe, pipe):
    """The flag is of the pipe, for all who have it."""
    os.set_blocking(pipe[0], False)
    p, begun = probe(stdin=pipe[0]), threading.Event()
    writer = threading.Thread(target=lambda: (begun.wait(), os.write(pipe[1], b"late")))
    writer.start()
    begun.set()
    assert p.fd_read(0) == (0, b"late")
    writer.join()


def test_two_that_read_one_pipe_hold_their_deadlines(pipe):
    """What one waited for the other may have taken: it waits again, with its deadline, and not in the read."""
    reading, writing = pipe
    waits = []

    def wait(fd, event):
        waits.append((fd, event))
        if len(waits) == 3:
            os.write(writing, b"for us")

    assert FdInput(reading, wait).read(100) == b"for us"
    assert waits == [(reading, select.POLLIN)] * 3
    os.write(writing, b"more")
    assert FdInput(reading, wait).read(2) == b"mo"


def test_output_is_captured_apart(probe):
    """And given once."""
    p = probe()
    assert p.fd_write(1, b"out") == (0, 3)
    assert p.fd_write(2, b"err") == (0, 3)
    assert p.call("fd_write", 1, *p.iovecs((0x8000, 1), (0x8001, 2)), 0x100) == 0
    written = p.instance.output()
    assert (written.stdout, written.stderr, written.truncated) == (b"outerr", b"err", False)
    assert p.instance.output().stdout == b""


@pytest.mark.parametrize(
    ("cap", "kept", "truncated"), [(10, b"0123456789", False), (9, b"012345678", True), (0, b"", True)]
)
def test_capture_stops_at_its_cap(probe, cap, kept, truncated):
    """Just under it all is there; beyond it the guest does not notice, and the result tells."""
    p = probe(stdout_bytes=cap)
    assert [p.fd_write(1, part) for part in (b"01234", b"56789")] == [(0, 5), (0, 5)]
    written = p.instance.output()
    assert (written.stdout, written.truncated) == (kept, truncated)
    assert p.instance.output().truncated is False


def test_caps_are_each_stream_s_own(probe):
    """What one does not use the other does not get."""
    p = probe(stdout_bytes=5, stderr_bytes=2)
    p.fd_write(1, b"01")
    p.fd_write(2, b"0123")
    assert p.instance.output().stderr == b"01"


def test_output_goes_where_it_is_sent(probe, tmp_path, pipe):
    """To a function, an object, a file, a descriptor, as it comes."""
    seen, buffer = [], io.BytesIO()
    p = probe(stdout=seen.append, stderr=buffer)
    p.fd_write(1, b"a")
    assert seen == [b"a"]
    p.fd_write(2, b"b")
    assert buffer.getvalue() == b"b"
    assert p.instance.output().stdout == b""
    with (tmp_path / "f").open("wb") as file:
        p = probe(stdout=file, stderr=pipe[1])
        p.fd_write(1, b"c")
        p.fd_write(2, b"d")
        assert (tmp_path / "f").read_bytes() == b"c"
        assert os.read(pipe[0], 10) == b"d"


def test_a_large_write_arrives_whole(probe, pipe):
    """More than a pipe holds, whoever is slower."""
    os.set_blocking(pipe[1], False)
    taken = []

    def drain():
        while sum(map(len, taken)) < 200_000:
            taken.append(os.read(pipe[0], 50_000))

    reader = threading.Thread(target=drain)
    reader.start()
    p = probe(stdout=pipe[1])
    assert p.fd_write(1, bytes(range(200)) * 1000) == (0, 200_000)
    reader.join()
    assert b"".join(taken) == bytes(range(200)) * 1000


def test_nobody_reads_any_more(probe, pipe):
    """The guest is told, as a program that ignores SIGPIPE is."""
    close(pipe, 0)
    p = probe(stdout=pipe[1])
    assert p.fd_write(1, b"x") == (abi.ERRNO["pipe"], None)


def test_a_function_that_raises_ends_the_call(probe):
    """Its error is chained, and only its class is told."""

    def fail(_data):
        raise ValueError("secret")

    p = probe(stdout=fail)
    at, length = p.put(b"x")
    with pytest.raises(CallError) as caught:
        p.instance.call("fd_write", [1, *p.iovecs((at, length)), 0x100])
    assert caught.value.cause is Cause.HOST_FUNCTION
    assert caught.value.message == "writing a stream raised ValueError"
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_object_that_gives_text_is_refused(probe):
    """Only bytes can be read."""

    class Text:
        def read(self, _most):
            return "text"

    p = probe(stdin=Text())
    with pytest.raises(CallError, match="returned str, not bytes"):
        p.instance.call("fd_read", [0, *p.iovecs((0x8000, 4)), 0x100])


def test_a_terminal_looks_like_one(probe):
    """And nothing else does."""
    outer, inner = pty.openpty()
    try:
        p = probe(stdin=inner, stdout=inner)
        kinds = [p.fdstat(fd)[1][0] for fd in (0, 1, 2)]
        assert kinds == [abi.CHARACTER_DEVICE, abi.CHARACTER_DEVICE, abi.UNKNOWN]
        assert p.filestat("fd_filestat_get", 1)[1][0] == abi.CHARACTER_DEVICE
    finally:
        os.close(outer)
        os.close(inner)


def test_the_caller_s_descriptors_stay_open(probe, pipe):
    """When the guest closes them, and when the instance is closed."""
    p = probe(stdin=pipe[0], stdout=pipe[1])
    assert [p.call("fd_close", fd) for fd in (0, 1)] == [0, 0]
    assert p.fd_write(1, b"x")[0] == abi.BADF
    p.instance.close()
    os.write(pipe[1], b"x")
    assert os.read(pipe[0], 1) == b"x"


def test_a_file_object_that_cannot_be_used(host, pipe):
    """An InstantiationError that says why, with the original chained: what it had buffered cannot be written any more,
    or it does not say where it stands."""

    class Odd:
        def fileno(self):
            return pipe[1]

        def read(self, _most):
            return b""

    module = host.compile('(module (func (export "_start")))')
    file = os.fdopen(os.dup(pipe[1]), "wb")
    file.write(b"x")
    close(pipe, 0)
    for grants, why in (({"stdout": file}, BrokenPipeError), ({"stdin": Odd()}, AttributeError)):
        with pytest.raises(InstantiationError) as caught:
            host.instantiate(module, wasi=Wasi(**grants))
        assert caught.value.cause is Cause.USAGE
        assert why.__name__ in str(caught.value)
        assert isinstance(caught.value.__cause__, why)
    with pytest.raises(BrokenPipeError):
        file.close()
