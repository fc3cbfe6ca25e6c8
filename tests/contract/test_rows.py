"""Rows of a batch: encoded many at a time, as each alone would be, and nothing of them is kept."""

from __future__ import annotations

import tracemalloc

import pytest

from pdsandbox import CallError
from pdsandbox.calls import encode_rows
from pdsandbox.slots import SLOT_BYTES, Slots

MANY = 5000  # more than are packed at once, of any width


@pytest.mark.parametrize("types", [(), ("i32",), ("i32", "i64", "i32"), ("i64",) * 1000])
@pytest.mark.parametrize("wider", [0, 1])
def test_many_rows_are_as_each_alone(types, wider):
    """Also where the results take more slots than the parameters."""
    params = Slots(types)
    rows = [[(row + i) % 1000 for i in range(len(types))] for row in range(MANY if len(types) < 10 else 50)]
    fill = bytes(wider * SLOT_BYTES)
    count, data = encode_rows(params, rows, params.nbytes + len(fill))
    assert count == len(rows)
    assert data == b"".join(params.encode(row) + fill for row in rows)


def test_a_wrong_row_far_on():
    """It is found wherever it is."""
    params = Slots(("i32",))
    with pytest.raises(CallError) as caught:
        encode_rows(params, [[1]] * (MANY - 1) + [[2**31]], params.nbytes)
    assert (caught.value.row, caught.value.results) == (MANY - 1, [])


def test_large_batches_leave_nothing_behind():
    """What is made to encode one is of a size that does not grow with it: one of 1,000,000 rows once left 60 MiB."""
    params = Slots(("i32", "i32"))
    rows = [(1, 2)] * (10 * MANY)
    tracemalloc.start()
    try:
        for shorter in range(4):
            encode_rows(params, rows[shorter:], params.nbytes)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20
