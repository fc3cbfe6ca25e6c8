"""The guest's random numbers: the kernel's, asked for each time, or a sequence that follows from a seed.

Asked for each time, because whatever was drawn before a fork would be the same in every worker.
"""

from __future__ import annotations

import _random  # the generator of `random`, without the module: that imports half a megabyte for its distributions
import os
from collections.abc import Callable

__all__ = ["entropy_of"]


def entropy_of(seed: int | None) -> Callable[[int], bytes]:
    """What gives n random bytes."""
    if seed is None:
        return _from_kernel
    generator = _random.Random(seed)
    return lambda n: generator.getrandbits(8 * n).to_bytes(n, "little") if n else b""


def _from_kernel(n: int) -> bytes:
    drawn = os.getrandom(n)
    while len(drawn) < n:  # a signal may cut what is longer than 256 bytes
        drawn += os.getrandom(n - len(drawn))
    return drawn
