"""Small tools for driving a guest from its text format."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pdsandbox.runtime.engine import Engine
from pdsandbox.runtime.guest import Guest, RawFunction


class Bench:
    """Makes guests from text and calls them over an aligned buffer; closes them all at the end."""

    def __init__(self, **config: Any) -> None:
        self.engine = Engine(**{"fuel": True, "interruptible": False, "stack_bytes": 512 << 10, **config})
        self._guests: list[Guest] = []
        self._buffer = ctypes.create_string_buffer(16 * 1100)
        self.address = (ctypes.addressof(self._buffer) + 15) & ~15

    def compile(self, text: str):
        return self.engine.compile(text.encode(), text=True)

    def guest(
        self,
        text: str,
        bind: Callable[..., RawFunction | None] = lambda _wanted, _guest: None,
        *,
        fuel: int | None = None,
        memory_bytes: int | None = 16 << 20,
        memories: int = 8,
        table_elements: int | None = 1000,
    ) -> Guest:
        guest = Guest(self.engine, memory_bytes=memory_bytes, memories=memories, table_elements=table_elements)
        self._guests.append(guest)
        guest.instantiate(self.compile(text), bind, fuel)
        return guest

    def call(self, guest: Guest, name: str, *args: Any, fuel: int = 10_000_000) -> list[Any]:
        export = guest.resolve(name)
        assert export is not None
        assert export.params is not None
        assert export.results is not None
        data = export.params.encode(args)
        ctypes.memmove(self.address, data, len(data))
        guest.bind(export, self.address)(fuel)
        return export.results.make(export.results.raw_values(ctypes.string_at(self.address, export.results.nbytes), 0))

    def close(self) -> None:
        for guest in self._guests:
            guest.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**config: Any) -> Bench:
        made.append(Bench(**config))
        return made[-1]

    yield make
    for one in made:
        one.close()
