"""What a Python script may come to, on both hosts: results, mistakes, attacks on the service, and the budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pdsandbox import CallError, Cause, FuelExhausted, RssExceeded, Trap, WallClockExceeded


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("", None),
        ("x = 1", None),
        ("result = None", None),
        ("result = True", True),
        ("result = -2**31", -(2**31)),
        ("result = 3**300", 3**300),
        ("result = 0.1 + 0.2", 0.1 + 0.2),
        ("result = 'h\\u00e9 \U0001f600 \"'", 'hé \U0001f600 "'),
        ("result = 'a\\x00b'", "a\0b"),
        ("result = (1, [2, {'three': 4.5}])", [1, [2, {"three": 4.5}]]),
        ("def f(n):\n    return n and n + f(n - 1)\nresult = f(50)", 1275),
        ("import re, hashlib, json, math\nresult = math.floor(math.pi)", 3),
        ("result = __name__", "__main__"),
        ("result = input()", ""),
        ("result = '\\ud800'", "\ud800"),
        ("import sys\nsys.exit()\nresult = 1", None),
    ],
)
def test_a_result(python, script, value):
    """`result` comes over as JSON has it, whatever the script's text holds."""
    assert python(script).value == value


def test_what_is_printed_is_captured(python):
    """Both kinds of text, and of a flood the first 64 KiB, while the script goes on."""
    assert python("print('h\\u00e9', end='')\nprint(1, 2)").printed == "hé1 2\n"
    flood = python("for _ in range(100): print('x' * 1023)\nresult = 1")
    assert (flood.printed, flood.value) == (("x" * 1023 + "\n") * 64, 1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("result = (1 +", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: divide by zero"),
        ("raise ValueError('a\\nb')", "b"),
        ("unknown", "NameError: name 'unknown' isn't defined"),
        ("import socket", "ImportError: no module named 'socket'"),
        ("import os\nos.listdir('/')", "OSError: [Errno 44] ENOENT"),
        ("open('/tmp/new', 'w')", "OSError: [Errno 44] ENOENT"),
        ("def f(): f()\nf()", "RuntimeError: maximum recursion depth exceeded"),
        ("hoard = 'x' * (300 << 20)", "MemoryError: memory allocation failed, allocating 314572801 bytes"),
        ("import sys\nprint('before')\nsys.exit(3)", "exited with 3"),
        ("result = object()", "RuntimeError: what is no JSON cannot be told to the service"),
        ("result = float('nan')", "RuntimeError: what is no JSON cannot be told to the service"),
        ("price(", "SyntaxError: invalid syntax"),
    ],
)
def test_a_mistake(python, script, words):
    """The script fails by itself: the last line of what MicroPython says of it."""
    with pytest.raises(python.ScriptError) as failed:
        python(script)
    assert str(failed.value) == words


def test_a_mistake_says_where_and_after_what(python):
    """The traceback has the script's own lines, and what was printed before is there."""
    with pytest.raises(python.ScriptError) as failed:
        python("print('before')\ndef f():\n    return {}['key']\nf()")
    assert 'File "script.py", line 4, in <module>\n  File "script.py", line 3, in f\nKeyError: key' in (
        failed.value.traceback
    )
    assert failed.value.printed == "before\n"


def test_scripts_share_nothing(python):
    """What one script leaves behind, in its globals or in modules, no other one finds."""
    look = "import sys\nresult = ['mine' in sys.path, 'mine' in globals()]"
    assert python(f"import sys\nsys.path.append('mine')\nmine = 1\n{look}").value == [True, True]
    assert python(look).value == [False, False]


def test_an_offered_function_runs_in_the_service(python):
    """It takes and gives what JSON carries, by position and by name, and keeps its closure's state."""
    seen = []

    def note(what, *, more=None):
        seen.append((what, more))
        return {"so far": len(seen)}

    script = "note('a')\nnote([1, None], more={'b': 2.5})\nresult = note(what='c')"
    assert python(script, {"note": note}).value == {"so far": 3}
    assert seen == [("a", None), ([1, None], {"b": 2.5}), ("c", None)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("add(1)", "RuntimeError: missing a required argument: 'b'"),
        ("add(1, 2, 3)", "RuntimeError: too many positional arguments"),
        ("add(1, c=2)", "RuntimeError: missing a required argument: 'b'"),
        ("add(-1, 2)", "RuntimeError: negative"),
        ("add('x' * 40000, '')", "ValueError: host callback result too large"),
    ],
)
def test_an_offered_function_refuses(python, script, words):
    """The script learns what it did wrong, may catch it, and is not told anything else of the service."""

    def add(a, b):
        if a == -1:
            raise python.Refusal("negative")
        return [a, a]

    with pytest.raises(python.ScriptError) as failed:
        python(script, {"add": add})
    assert str(failed.value) == words
    caught = f"try:\n    {script}\nexcept Exception as exc:\n    result = type(exc).__name__ + ': ' + str(exc)"
    assert python(caught, {"add": add}).value == words


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("'nobody', '[[], {}]'", {"error": "no such function is offered"}),
        ("'', ''", {"error": "no such function is offered"}),
        ("'note', ''", {"error": "what is no JSON cannot be told to the service"}),
        ("'note', '[' * 60000", {"error": "what is no JSON cannot be told to the service"}),
        ("'note', '[[' + '9' * 5000 + '], {}]'", {"error": "what is no JSON cannot be told to the service"}),
        ("'note', '[[1], {}]'", {"value": None}),
    ],
)
def test_a_script_that_speaks_past_the_prelude(python, call, answer):
    """Whatever it tells the host function itself is answered, and harms nobody."""
    script = f"import host, json\nresult = json.loads(host.call({call}))"
    assert python(script, {"note": lambda _what: None}).value == answer


def test_a_script_that_passes_for_the_prelude(python):
    """It may give a result itself, and only the last one is kept."""
    script = "import host, sys\nfor n in range(5): host.call('result', '[[%d], {}]' % n)\nsys.exit(0)"
    assert python(script).value == 4


def test_a_mistake_of_the_service(python):
    """An offered function that raises ends the script: the service gets its own exception, the script not a word."""

    def broken():
        raise KeyError("secret")

    with pytest.raises(CallError) as stopped:
        python("try:\n    broken()\nexcept Exception:\n    pass", {"broken": broken})
    assert stopped.value.cause is Cause.HOST_FUNCTION
    assert isinstance(stopped.value.__cause__, KeyError)


def test_too_much_said_at_once(python):
    """What a script says in one call is bounded: more is an error of the script's, and nobody reads it."""
    said = []
    assert python("result = note('x' * 60000)", {"note": said.append}).value is None
    with pytest.raises(python.ScriptError) as failed:
        python("note('x' * 70000)", {"note": said.append})
    assert str(failed.value) == "RuntimeError: host callback failed"
    assert said == ["x" * 60000]


def test_fuel(limited_python):
    """An endless loop ends with the fuel, what it printed first is told, and the next script runs."""
    python = limited_python(fuel=100_000_000)
    for script in ("print('before')\nwhile True: pass", "print('before')\ntry:\n    while 1: pass\nexcept: pass"):
        with pytest.raises(FuelExhausted) as stopped:
            python(script)
        assert stopped.value.output.stdout == b"before\n"
        assert python("result = 6 * 7").value == 42


def test_endless_output(limited_python):
    """It ends with the fuel, and 64 KiB of it are kept."""
    with pytest.raises(FuelExhausted) as stopped:
        limited_python(fuel=1_000_000_000)("while True: print('spam' * 100)")
    assert (len(stopped.value.output.stdout), stopped.value.output.truncated) == (64 << 10, True)


def test_a_stack_that_ends_in_the_engine(python):
    """Where MicroPython does not look at its stack, the engine does."""
    with pytest.raises(Trap, match="call stack exhausted"):
        python("import re\nre.match('(a*)*b', 'a' * 25)")
    assert python("result = 6 * 7").value == 42


def test_wall(limited_python):
    """A script that waits ends at its deadline, what it printed first is told, and the next one runs."""
    python = limited_python(wall_s=1.0)
    with pytest.raises(WallClockExceeded) as stopped:
        python("import time\nprint('before')\ntime.sleep(3600)")
    assert stopped.value.output.stdout == b"before\n"
    assert python("result = 6 * 7").value == 42


def test_rss(limited_python):
    """A heap that may grow beyond `rss_bytes` does not, and the next script runs."""
    python = limited_python(rss_bytes=48 << 20, fuel=None)
    with pytest.raises(RssExceeded):
        python("hoard = []\nwhile True: hoard.append(bytearray(100_000))", heap="100M")
    assert python("result = 6 * 7").value == 42


def test_many_at_once(python):
    """Scripts of several threads each get their own answers."""

    def bill(customer):
        script = "for _ in range(20): last = price(1)\nprint(last)\nresult = last"
        return python(script, {"price": lambda count: count * customer})

    with ThreadPoolExecutor(4) as pool:
        bills = list(pool.map(bill, range(16)))
    assert [(each.value, each.printed) for each in bills] == [(number, f"{number}\n") for number in range(16)]
