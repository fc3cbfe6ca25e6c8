"""What a call ends in stands alone: no exception of our own, met on the way, is told as what it came from."""

from __future__ import annotations

import pytest

from pdsandbox import CallError, Trap

#: More exports than a worker is told of beforehand, so that the last is resolved by its first call.
GUEST = f"""(module
  {"".join(f'(func (export "n{number}"))' for number in range(20))}
  (func (export "one") (param i32) (result i32) (local.get 0))
  (func (export "float") (param f64) (unreachable))
  (func (export "long") (param {"i32 " * 200}) (unreachable))
  (func (export "late") (unreachable)))"""


@pytest.mark.parametrize(("name", "args"), [("late", []), ("float", [0.5]), ("long", [1] * 200)])
def test_a_trap_stands_alone(instantiate, name, args):
    """On the first call of an export, and on a warm one; with floats, and with more than is packed at once."""
    instance = instantiate(GUEST)
    for _ in range(2):
        with pytest.raises(Trap) as caught:
            instance.call(name, args)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("args", [["1"], [2**31], [1, 2], [0.5]])
def test_a_wrong_argument_stands_alone(instantiate, args):
    """Also on a warm call, which finds out by trying."""
    instance = instantiate(GUEST)
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            instance.call("one", args)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert instance.func("one")(7) == 7
