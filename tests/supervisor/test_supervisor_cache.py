"""The in-memory cache of compiled modules: what is compiled once, what is thrown out first, what is closed when."""

from __future__ import annotations

import gc

import pytest
from supervising import eventually, expect, memfds

from pdsandbox import I32, Cause, CompileError, InstantiationError
from pdsandbox.errors import WasmError
from pdsandbox.supervisor import cache
from pdsandbox.supervisor.cache import CompileCache
from pdsandbox.supervisor.housekeeper import Housekeeper


def source(number, pad=0):
    """A module that answers `number`; `pad` more functions make its artifact larger."""
    more = "".join(f'(func (export "f{i}") (result i32) (i32.const {i}))' for i in range(pad))
    return f'(module (func (export "n") (result i32) (i32.const {number})) {more})'


def answer(supervisor, module):
    with supervisor.instantiate(module) as instance:
        return instance.call("n")


def test_an_equal_module_is_compiled_once(host, spawned):
    """The second module shares the first one's compilation, and no second compiler is asked for."""
    first, second = host.compile(source(101)), host.compile(source(101))
    assert second is not first
    assert second.compiled is first.compiled
    assert second.sha256 == first.sha256
    assert len(spawned.compilers) == 1
    assert answer(host, second) == [I32(101)]


def test_bytes_like_sources_are_one_module(host, spawned, binary):
    """bytes, bytearray and memoryview of the same content are the same source."""
    modules = [host.compile(kind(binary)) for kind in (bytes, bytearray, memoryview)]
    assert len({id(module.compiled) for module in modules}) == 1
    assert len(spawned.compilers) == 1


@pytest.fixture
def binary():
    """An empty module with a custom section that makes it this test's own."""
    return b"\0asm\1\0\0\0" + b"\0\5\4only"


@pytest.mark.parametrize("text_first", [False, True])
def test_text_and_binary_of_the_same_bytes_do_not_collide(make_supervisor, text_first):
    """What is a module as binary is none as text, whichever of the two was compiled first."""
    host = make_supervisor()
    raw = b"\0asm\1\0\0\0"
    if text_first:
        expect(CompileError, Cause.COMPILE, lambda: host.compile(raw.decode()))
    assert host.compile(raw).exports() == []
    expect(CompileError, Cause.COMPILE, lambda: host.compile(raw.decode()))
    assert host.compile(raw).exports() == []


def test_least_recently_used_goes_first(make_supervisor, spawned):
    """With room for three, the one that was used longest ago is compiled again, and none of the others."""
    size = make_supervisor().compile(source(1)).compiled.artifact.size
    host = make_supervisor(cache_bytes=3 * size)
    for number in (1, 2, 3):
        assert host.compile(source(number)).compiled.artifact.size == size
    host.compile(source(1))  # used again: 2 is the oldest now
    host.compile(source(4))  # 2 goes
    del spawned._all[:]
    for number in (3, 1, 4):
        host.compile(source(number))
    assert spawned.compilers == []
    host.compile(source(2))  # 3 goes
    assert len(spawned.compilers) == 1
    host.compile(source(1))
    host.compile(source(4))
    assert len(spawned.compilers) == 1
    host.compile(source(3))
    assert len(spawned.compilers) == 2


def test_a_large_entry_makes_room_for_itself_only_as_far_as_needed(make_supervisor, spawned):
    """Bytes count, not entries: one larger artifact throws out as many old ones as it needs, oldest first."""
    probe = make_supervisor()
    small, large = (probe.compile(source(1, pad=pad)).compiled.artifact.size for pad in (0, 400))
    assert large > 2 * small
    host = make_supervisor(cache_bytes=large + small)
    count = (large + small) // small
    for number in range(count):
        host.compile(source(number))
    host.compile(source(count, pad=400))
    del spawned._all[:]
    host.compile(source(count - 1))  # the youngest of the small ones stayed
    host.compile(source(count, pad=400))
    assert spawned.compilers == []
    host.compile(source(0))
    assert len(spawned.compilers) == 1


def test_an_artifact_larger_than_the_cache(make_supervisor, spawned):
    """It is not kept, throws nobody out, and works."""
    probe = make_supervisor()
    small, large = (probe.compile(source(1, pad=pad)).compiled.artifact.size for pad in (0, 400))
    host = make_supervisor(cache_bytes=large - 1)
    host.compile(source(1))
    assert small < large - 1
    big = host.compile(source(2, pad=400))
    assert answer(host, big) == [I32(2)]
    del spawned._all[:]
    host.compile(source(1))
    assert spawned.compilers == []
    assert host.compile(source(2, pad=400)).compiled is not big.compiled
    assert len(spawned.compilers) == 1


def test_no_more_entries_than_there_may_be_descriptors(make_supervisor, spawned, monkeypatch):
    """Each entry holds a descriptor: beyond MAX_ENTRIES the oldest goes, however small they are."""
    monkeypatch.setattr(cache, "MAX_ENTRIES", 4)
    host = make_supervisor()
    for number in range(5):
        host.compile(source(number))
    del spawned._all[:]
    for number in range(1, 5):
        host.compile(source(number))
    assert spawned.compilers == []
    host.compile(source(0))
    assert len(spawned.compilers) == 1


def test_no_cache(make_supervisor, spawned):
    """`cache_bytes=0` keeps nothing: every compile has a compiler of its own, and each module works."""
    host = make_supervisor(cache_bytes=0)
    modules = [host.compile(source(7)) for _ in range(3)]
    assert len({id(module.compiled) for module in modules}) == 3
    assert len(spawned.compilers) == 3
    assert [answer(host, module) for module in modules] == [[I32(7)]] * 3


def test_an_artifact_lives_as_long_as_its_last_user(make_supervisor):
    """Thrown out of the cache, it works on for a module that is still held; its descriptor goes with that one."""
    before = memfds()
    host = make_supervisor(cache_bytes=0)
    one, same = (host.compile(source(8)) for _ in range(2))
    assert memfds() - before == 2
    del same
    gc.collect()
    eventually(lambda: memfds() - before == 1)
    assert answer(host, one) == [I32(8)]
    del one
    gc.collect()
    eventually(lambda: memfds() == before)


def test_the_caches_own_descriptors_go_with_the_supervisor(make_supervisor):
    """What only the cache holds stays open until close; then also what modules hold is closed, and says so."""
    before = memfds()
    host = make_supervisor()
    kept = host.compile(source(9))
    host.compile(source(10))
    gc.collect()
    assert memfds() - before == 2
    host.close()
    assert memfds() == before
    expect(InstantiationError, Cause.CLOSED, lambda: host.instantiate(kept))


def test_an_artifact_dropped_while_the_supervisor_closes(make_supervisor, monkeypatch):
    """Its descriptor is closed even when its last user goes after the housekeeper has ended."""
    before = memfds()
    host = make_supervisor(cache_bytes=0)
    held = [host.compile(source(11))]
    stop = Housekeeper.stop

    def stopping(self):
        stop(self)
        held.clear()
        gc.collect()

    monkeypatch.setattr(Housekeeper, "stop", stopping)
    host.close()
    assert memfds() == before


def test_an_error_is_not_cached(host, spawned):
    """An invalid module is compiled each time anew, with an equal error."""
    errors = [expect(CompileError, Cause.COMPILE, lambda: host.compile("(module (func (result i32)))")) for _ in "12"]
    assert errors[0] == errors[1]
    assert errors[0] is not errors[1]
    assert len(spawned.compilers) == 2


class _Entry:
    """What the cache looks at of a `Compiled`."""

    def __init__(self, size):
        self.artifact = self
        self.size = size


def test_the_caches_books_are_right():
    """`bytes_held` is the sum of what is kept, and never over the limit."""
    books = CompileCache(100)
    for key, size in ((b"a", 40), (b"b", 40), (b"c", 20), (b"d", 101), (b"e", 60)):
        assert books.get(key, lambda size=size: _Entry(size)).size == size
        assert books.bytes_held <= 100
    assert (books.bytes_held, len(books)) == (80, 2)  # c and e
    books.clear()
    assert (books.bytes_held, len(books)) == (0, 0)

    def fails():
        raise CompileError("no")

    with pytest.raises(WasmError):
        books.get(b"f", fails)
    assert (books.bytes_held, len(books)) == (0, 0)
