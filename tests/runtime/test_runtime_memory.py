import pytest

from pdsandbox import cargs
from pdsandbox.errors import CallError, Cause, MemoryAccessError
from pdsandbox.runtime.guest import RawFunction


@pytest.mark.parametrize(("offset", "length"), [(65536, 1), (-1, 1), (0, 65537), (0, -1), (2**70, 1), (65535, 2)])
def test_outside_is_refused(bench, offset, length):
    """Any range that is not wholly inside raises, for reading and writing alike, and nothing is written."""
    guest = bench.guest('(module (memory (export "memory") 1))')
    with pytest.raises(MemoryAccessError):
        guest.memory_read(offset, length)
    if length > 0:
        with pytest.raises(MemoryAccessError):
            guest.memory_write(offset, b"x" * length)
    assert guest.memory_read(0, 65536) == bytes(65536)


def test_the_edges_are_inside(bench):
    """The last byte, and nothing at the very end, are inside."""
    guest = bench.guest('(module (memory (export "memory") 1))')
    guest.memory_write(65535, b"z")
    assert guest.memory_read(65535, 1) == b"z"
    assert guest.memory_read(65536, 0) == b""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('(memory 3) (memory (export "b") 2) (memory (export "memory") 1)', 1),
        ('(memory 3) (memory (export "b") 2) (memory (export "a") 1)', 2),
        ('(func (export "memory")) (func (export "x")) (memory (export "m") 2)', 2),
        ('(memory (export "memory") i64 1)', 1),
        ("(memory 1)", None),
        ("", None),
    ],
)
def test_which_memory(bench, text, size):
    """The export `memory` if it is one, else the first exported memory, else none."""
    guest = bench.guest(f"(module {text})")
    guest.find_memory()
    assert guest.where()[1] == (size or 0) * 65536
    if size is None:
        with pytest.raises(MemoryAccessError):
            guest.memory_read(0, 0)


def test_growth_moves_the_base_and_keeps_the_data(bench):
    """After growing, old bytes are still there and the new ones can be reached."""
    guest = bench.guest(
        '(module (memory (export "memory") 1) (func (export "g") (param i32) (result i32) local.get 0 memory.grow))'
    )
    guest.memory_write(10, b"kept")
    assert bench.call(guest, "g", 200)[0].value == 1
    assert guest.memory_read(10, 4) == b"kept"
    guest.memory_write(201 * 65536 - 1, b"!")
    assert bench.call(guest, "g", 100)[0].value == -1


def test_memory_in_a_host_call_of_the_start_function(bench):
    """While instantiating there is no instance yet, and memory can be read and written all the same."""
    seen = []

    def bind(wanted, guest):
        def fn(_at):
            seen.append(guest.memory_read(0, 2))
            guest.memory_write(0, b"yo")

        return RawFunction(wanted.type, fn)

    text = '(module (import "a" "b" (func $b)) (memory (export "m") 1) (data (i32.const 0) "hi") (start $b))'
    guest = bench.guest(text, bind)
    assert seen == [b"hi"]
    assert guest.memory_read(0, 2) == b"yo"


def test_after_close_everything_is_refused(bench):
    """A closed guest raises CallError, cause CLOSED, and closing twice is allowed."""
    guest = bench.guest('(module (memory (export "memory") 1) (func (export "f")))')
    call = guest.bind(guest.resolve("f"), bench.address)
    guest.close()
    guest.close()
    for use in (
        lambda: call(1),
        lambda: guest.resolve("f"),
        lambda: guest.memory_read(0, 1),
        guest.find_memory,
    ):
        with pytest.raises(CallError) as caught:
            use()
        assert caught.value.cause is Cause.CLOSED


def test_a_search_that_was_left_half_way_is_begun_anew(bench, monkeypatch):
    """Ctrl-C in the middle of finding the memory does not make the guest one without."""
    guest = bench.guest('(module (memory (export "memory") 1))')

    def interrupted(_address):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(cargs, "pointer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guest.memory_read(0, 1)
    assert guest.memory_read(0, 1) == b"\0"
