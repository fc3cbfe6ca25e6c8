"""Text that a guest, or native code in its worker, chose: whatever of it gets into a message is escaped and cut."""

from __future__ import annotations

import ctypes
import os

import pytest

from pdsandbox import CallError, CompileError, Frame, HostFunction, Supervisor, WasmError, WasmImports, in_worker
from pdsandbox.protocol import messages as m
from pdsandbox.supervisor import monitor

#: A terminal's orders, a bell, a backspace, text that runs backwards, no character at all, a line as in a log.
ORDERS = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\b\u202eevil\u2066\x00\r\n2026-01-01 CRITICAL root logged in\u2028\ufeff\U000e0041"
)
#: Names that a module may have: UTF-8 without a NUL.
NAME = ORDERS.replace("\x00", "").replace("\r\n", " ")
FAILURES = [value for name, value in vars(m.Failure).items() if name.isupper() and isinstance(value, int)]
LONGEST = 2000


def in_wat(text):
    """As the text format writes it."""
    return "".join(f"\\{byte:02x}" for byte in text.encode())


def harmless(error, *, lines=1):
    """Each line that is printed of it is printable, and there is not too much of it."""
    text = str(error)
    assert len(text) <= LONGEST * lines
    assert text.count("\n") < lines
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    assert repr(error).replace("\n", "").isprintable()


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_a_worker_says_that_failed(failure, size):
    """An ERROR of any kind, text and frames of a worker's own choice: one printable line, and the cause's lines."""
    frames = (Frame(1, ORDERS * size, ORDERS * size, 1, 1),) * 64
    error = monitor.failure(m.Error(failure, 0, None, None, 0, (ORDERS + "\n") * size, frames))
    harmless(error)
    if error.__cause__ is not None:
        harmless(error.__cause__, lines=50)
    assert repr(error.frames).isprintable()
    assert all(len(frame.func_name) <= 256 and len(frame.module_name) <= 256 for frame in error.frames)


def test_last_words():
    """What a process said last, in a message of ours."""
    harmless(monitor.broke_protocol(ORDERS * 1000))
    harmless(monitor.not_locked_down((ORDERS * 1000).encode()))
    harmless(monitor.not_locked_down(bytes(range(256)) * 16))


def test_names_in_a_module(host):
    """Of imports, exports and functions: in no message as they are."""
    name = in_wat(NAME)
    for source in (
        f'(module (import "{name}" "{name}" (func)))',
        f'(module (import "{name}" "{name}" (memory 1)))',
        f'(module (import "env" "pd_log" (func $f (param i64))) (func (export "{name}") unreachable))',
        f'(module (func (export "{name}")) (func (export "{name}")))',
        f'(module (func $f (@name "{name}") (result i32) (i64.const 1)))',
        f'(module (func (@name "{name}") unreachable) (start 0))',
    ):
        with pytest.raises(WasmError) as caught:
            host.instantiate(host.compile(source)).close()
        harmless(caught.value)
        assert "\x1b" not in repr(caught.value)


def test_names_that_a_call_meets(instantiate):
    """An export with such a name traps, is no function, is not there: the message has it escaped, or not at all."""
    name = in_wat(NAME)
    instance = instantiate(
        f'(module (memory 1) (export "m{name}" (memory 0)) (func (@name "{name}") (export "{name}") unreachable))'
    )
    for call in (NAME, f"m{NAME}", f"x{NAME}", NAME * 1000):
        with pytest.raises(WasmError) as caught:
            instance.call(call)
        harmless(caught.value)
        assert repr(caught.value.frames).isprintable()


def _shout(_caller, how):
    text = "\x1b[2J\x07\u202eevil\x00\r\n" * 500
    if how == 0:
        raise ValueError(text)
    if how == 1:
        raise type(text[:40].replace("\x00", ""), (Exception,), {})(text)
    if how == 2:
        os.write(2, text.encode())
        os._exit(3)
    if how == 3:
        os.write(2, text.encode())
        ctypes.string_at(0)


@pytest.mark.parametrize("how", range(4))
def test_a_function_in_the_worker_shouts(how):
    """Its exception's name and text, its last words on standard error: escaped and cut, or bytes."""
    source = """(module (import "env" "shout" (func $shout (param i32)))
      (func (export "run") (param i32) (call $shout (local.get 0))))"""
    with Supervisor(spares=0) as host:
        functions = {("env", "shout"): HostFunction(in_worker(_shout), ("i32",))}
        instance = host.instantiate(host.compile(source), WasmImports(functions=functions))
        with pytest.raises(WasmError) as caught:
            instance.call("run", [how])
    error = caught.value
    harmless(error)
    if how < 2:
        assert type(error) is CallError
        harmless(error.__cause__, lines=50)
    else:
        assert isinstance(error.stderr_tail, bytes)
        assert 0 < len(error.stderr_tail) <= 4096


def test_a_refused_module_says_why_in_few_words(host):
    """A megabyte of hostile names: a message that fits a line."""
    name = in_wat(NAME) * 200
    source = "(module" + f'(import "{name}" "{name}" (func (param funcref i64)))' * 20 + "(func (result i32)))"
    with pytest.raises(CompileError) as caught:
        host.compile(source)
    harmless(caught.value)
