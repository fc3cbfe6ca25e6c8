"""What a JavaScript script may come to, on both hosts: results, mistakes, attacks on the service, and the budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pdsandbox import CallError, Cause, FuelExhausted, GuestExit, RssExceeded, Trap, WallClockExceeded

STD = "const std = await import('qjs:std'); "


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("", None),
        ("let x = 1", None),
        ("null", None),
        ("true", True),
        ("2 ** 31", 2**31),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("0 / 0", None),
        ("'h\\u00e9 \U0001f600 \"'", 'hé \U0001f600 "'),
        ("'a\\u0000b'", "a\0b"),
        ("'a\0b'", "a\0b"),
        ("'\\ud800'", "\ud800"),
        ("({a: [1, {b: 4.5}], c: undefined, d() {}})", {"a": [1, {"b": 4.5}]}),
        ("const f = (n) => n && n + f(n - 1); f(300)", 45150),
        ("[...new Set([3, 1, 3])].map((n) => n ** 2).sort()", [1, 9]),
        ("await Promise.all([1, Promise.resolve(2)])", [1, 2]),
        ("/(\\d+)-(\\d+)/.exec('12-34').slice(1)", ["12", "34"]),
        ("typeof std + typeof os + typeof require + typeof fetch", "undefined" * 4),
        ("'x'.repeat(60000).length", 60000),
        ("//" + "x" * 200_000 + "\n7", 7),
    ],
)
def test_a_result(javascript, script, value):
    """The last value comes over as JSON has it, whatever the script's text holds and however long it is."""
    assert javascript(script).value == value


def test_what_is_printed_is_captured(javascript):
    """By console.log, print and std.out, and of a flood the first 64 KiB, while the script goes on."""
    assert javascript(STD + "console.log('h\\u00e9', 1); print(2); std.out.puts('three')").printed == "hé 1\n2\nthree"
    flood = javascript("for (let n = 0; n < 100; n++) print('x'.repeat(1023)); 1")
    assert (flood.printed, flood.value) == (("x" * 1023 + "\n") * 64, 1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("let x = (1 +", "SyntaxError: unexpected token in expression: ''"),
        ("throw new RangeError('far')", "RangeError: far"),
        ("throw 'words'", "words"),
        ("throw null", "null"),
        ("unknown", "ReferenceError: unknown is not defined"),
        ("await Promise.reject(new Error('no'))", "Error: no"),
        ("require('fs')", "ReferenceError: require is not defined"),
        ("await import('./other.js')", "ReferenceError: could not load module filename 'other.js'"),
        ("10n", "TypeError: BigInt are forbidden in JSON.stringify"),
        ("const x = {}; x.x = x", "TypeError: circular reference"),
        ("let s = 'x'; for (;;) s += s", "InternalError: string too long"),
        (STD + "std.err.puts('my own words\\n'); throw 1", "my own words"),
        (STD + "std.in.getline()", "TypeError: invalid 'in' operand"),  # nothing was asked: the line has ended
        ("JSON.stringify = () => { throw new Error('mine') }", "Error: mine"),
    ],
)
def test_a_mistake(javascript, script, words):
    """The script fails by itself: the first line of what QuickJS says of it."""
    with pytest.raises(javascript.ScriptError) as failed:
        javascript(script)
    assert str(failed.value) == words


def test_a_mistake_says_where_and_after_what(javascript):
    """The stack has the script's own lines, and what was printed before is there."""
    with pytest.raises(javascript.ScriptError) as failed:
        javascript("print('before');\nfunction f() { null.x }\nf()")
    assert failed.value.stack.startswith("TypeError: cannot read property 'x' of null\n    at f (<evalScript>:2:")
    assert failed.value.printed == "before\n"


def test_scripts_share_nothing(javascript):
    """What one script leaves behind no other one finds."""
    javascript("globalThis.mine = Array.prototype.mine = 1")
    assert javascript("[typeof mine, typeof [].mine]").value == ["undefined", "undefined"]


def test_an_offered_function_runs_in_the_service(javascript):
    """It takes and gives what JSON carries, and keeps its closure's state."""
    seen = []

    def note(what, more=None):
        seen.append((what, more))
        return {"so far": len(seen)}

    script = "note('a'); note([1, null], {b: 2.5}); note('c'.repeat(30000), note('d'))"
    assert javascript(script, {"note": note}).value == {"so far": 4}
    assert seen == [("a", None), ([1, None], {"b": 2.5}), ("d", None), ("c" * 30000, {"so far": 3})]


def test_a_long_answer(javascript):
    """What the service answers is as long as it likes."""
    assert javascript("long().length", {"long": lambda: "x" * 1_000_000}).value == 1_000_000


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("add(1)", "Error: missing a required argument: 'b'"),
        ("add(1, 2, 3)", "Error: too many positional arguments"),
        ("add(-1, 2)", "Error: negative"),
    ],
)
def test_an_offered_function_refuses(javascript, script, words):
    """The script learns what it did wrong, may catch it, and is not told anything else of the service."""

    def add(a, b):
        if a == -1:
            raise javascript.Refusal("negative")
        return a + b

    with pytest.raises(javascript.ScriptError) as failed:
        javascript(script, {"add": add})
    assert str(failed.value) == words
    assert javascript(f"try {{ {script} }} catch (error) {{ String(error) }}", {"add": add}).value == words


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("'[\"nobody\", []]'", {"error": "no such function is offered"}),
        ("'what'", {"error": "what is no JSON cannot be told to the service"}),
        ("'['.repeat(60000)", {"error": "what is no JSON cannot be told to the service"}),
        ("'[\"note\", [' + '9'.repeat(5000) + ']]'", {"error": "what is no JSON cannot be told to the service"}),
        ("'[[], []]'", {"error": "unhashable type: 'list'"}),
        ("'[\"note\", [1]]'", {"value": None}),
    ],
)
def test_a_script_that_speaks_past_the_prelude(javascript, request_, answer):
    """Whatever it writes on the line itself is answered, and harms nobody."""
    script = STD + f"std.err.puts('\\x1e' + {request_} + '\\n'); std.err.flush(); JSON.parse(std.in.getline())"
    assert javascript(script, {"note": lambda _what: None}).value == answer


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("for (;;) { std.err.puts('\\x1e[\"note\", [1]]\\n'); std.err.flush() }", "before it had read the last answer"),
        ("for (;;) { std.err.puts('x'.repeat(999)); std.err.flush() }", "in more than 65,536 bytes"),
    ],
)
def test_a_script_that_would_fill_the_service(javascript, script, words):
    """Requests whose answers nobody reads, and a line without an end, end the script."""
    with pytest.raises(CallError) as stopped:
        javascript(STD + script, {"note": lambda _what: "x" * 1000})
    assert stopped.value.cause is Cause.HOST_FUNCTION
    assert words in str(stopped.value.__cause__)
    assert javascript("6 * 7").value == 42


def test_messages_without_an_end(limited_javascript):
    """Of what a script writes on standard error, 64 KiB are kept."""
    javascript = limited_javascript(fuel=1_000_000_000)
    with pytest.raises(javascript.ScriptError) as failed:
        javascript(STD + "for (let n = 0; n < 200; n++) { std.err.puts('x'.repeat(999) + '\\n') } throw 1")
    assert len(failed.value.stack) == 64 << 10


def test_a_script_that_leaves(javascript):
    """`std.exit` ends the guest, which is told."""
    with pytest.raises(GuestExit) as stopped:
        javascript(STD + "print('before'); std.exit(3)")
    assert (stopped.value.exit_code, stopped.value.output.stdout) == (3, b"before\n")


def test_a_mistake_of_the_service(javascript):
    """An offered function that raises ends the script: the service gets its own exception, the script not a word."""

    def broken():
        raise KeyError("secret")

    with pytest.raises(CallError) as stopped:
        javascript("try { broken() } catch {}", {"broken": broken})
    assert stopped.value.cause is Cause.HOST_FUNCTION
    assert isinstance(stopped.value.__cause__, KeyError)


@pytest.mark.parametrize("loop", ["for (;;);", "try { for (;;); } finally { for (;;); }", "await new Promise(() => 0)"])
def test_fuel(limited_javascript, loop):
    """An endless loop ends with the fuel, what it printed first is told, and the next script runs."""
    javascript = limited_javascript(fuel=100_000_000)
    with pytest.raises(FuelExhausted) as stopped:
        javascript(f"print('before'); {loop}")
    assert stopped.value.output.stdout == b"before\n"
    assert javascript("6 * 7").value == 42


def test_endless_output(limited_javascript):
    """It ends with the fuel, and 64 KiB of it are kept."""
    with pytest.raises(FuelExhausted) as stopped:
        limited_javascript(fuel=1_000_000_000)("for (;;) print('spam'.repeat(100))")
    assert (len(stopped.value.output.stdout), stopped.value.output.truncated) == (64 << 10, True)


@pytest.mark.parametrize("script", ["(function f() { return f() + 1 })()", "JSON.parse('['.repeat(100000))"])
def test_deep_recursion(javascript, script):
    """QuickJS does not look at its stack here, so the engine does."""
    with pytest.raises(Trap, match="call stack exhausted"):
        javascript(script)
    assert javascript("6 * 7").value == 42


def test_a_memory_hog_within_the_engine(limited_javascript):
    """Linear memory that cannot grow is an error which the script may catch."""
    javascript = limited_javascript(memory_bytes=16 << 20)
    script = "const hoard = []; for (;;) hoard.push(new Uint8Array(100_000))"
    with pytest.raises(javascript.ScriptError) as failed:
        javascript(script)
    assert str(failed.value) == "InternalError: out of memory"


def test_wall(limited_javascript):
    """A script that waits ends at its deadline, what it printed first is told, and the next one runs."""
    javascript = limited_javascript(wall_s=1.0)
    for wait in ("os.sleep(3600_000)", "await new Promise((resolve) => os.setTimeout(resolve, 3600_000))"):
        with pytest.raises(WallClockExceeded) as stopped:
            javascript("const os = await import('qjs:os'); print('before'); " + wait)
        assert stopped.value.output.stdout == b"before\n"
    assert javascript("6 * 7").value == 42


def test_rss(limited_javascript):
    """Memory beyond `rss_bytes` ends a script, and the next one runs."""
    javascript = limited_javascript(rss_bytes=48 << 20, fuel=None)
    with pytest.raises(RssExceeded):
        javascript("const hoard = []; for (;;) hoard.push(new Uint8Array(100_000).fill(1))")
    assert javascript("6 * 7").value == 42


def test_many_at_once(javascript):
    """Scripts of several threads each get their own answers."""

    def bill(customer):
        script = "let last; for (let n = 0; n < 20; n++) last = price(1); print(last); last"
        return javascript(script, {"price": lambda count: count * customer})

    with ThreadPoolExecutor(4) as pool:
        bills = list(pool.map(bill, range(16)))
    assert [(each.value, each.printed) for each in bills] == [(number, f"{number}\n") for number in range(16)]
