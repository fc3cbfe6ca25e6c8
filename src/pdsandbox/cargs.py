"""Arguments of C functions that have no prototype, made beforehand: passing one takes 15 ns instead of 40.

ctypes takes a `c_void_p` or `c_size_t` apart at every call, which makes an object that it then drops. These are that
object. They neither own nor check what they point to.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["c_int", "pointer", "size"]


def pointer(address: int) -> Any:
    """A `void *`."""
    return ctypes.c_void_p.from_param(address)


def size(nbytes: int) -> Any:
    """A `size_t`."""
    return ctypes.c_size_t.from_param(nbytes)


def c_int(number: int) -> Any:
    """An `int`, as descriptors are."""
    return ctypes.c_int.from_param(number)
