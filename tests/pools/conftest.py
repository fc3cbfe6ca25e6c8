"""`scene`: pools that are closed after the test, whatever became of it."""

from __future__ import annotations

import pytest
from pooling import Scene


@pytest.fixture
def scene(host):
    made = []

    def make(*source, **options):
        made.append(Scene(host, *source, **options))
        return made[-1]

    yield make
    for each in made:
        each.release()
        each.pool.close()
