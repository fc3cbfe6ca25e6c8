"""Actors that are ended after their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acting import Driven


@pytest.fixture
def drive(host: Any) -> Iterator[Callable[..., Driven]]:
    """drive(source="", fuel=0, on=host, start=True, **options): an actor of that source, or of `acting.GUEST`."""
    made: list[Driven] = []

    def make(*arguments: Any, on: Any = None, start: bool = True, **options: Any) -> Driven:
        made.append(Driven(host if on is None else on, *arguments, **options))
        if start:
            assert made[-1].actor.on_start() is True
        return made[-1]

    yield make
    for each in made:
        each.actor.plugin.close()
