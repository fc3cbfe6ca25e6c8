"""Fixtures for the examples: each as a module, as somebody would import who has copied its file."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest

from pdsandbox import Limits, Supervisor

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def python_example():
    """examples/untrusted_python.py"""
    return _example("untrusted_python")


@pytest.fixture(scope="session")
def javascript_example():
    """examples/untrusted_javascript.py"""
    return _example("untrusted_javascript")


class Running:
    """Runs scripts on one host, by one of the examples."""

    def __init__(self, example, wasm, host):
        self._example = example
        self.host = host
        self.module = host.compile(wasm.read_bytes())
        self.ScriptError, self.Refusal = example.ScriptError, example.Refusal

    def __call__(self, script, offers=None, **options):
        return self._example.run_script(self.host, self.module, script, offers or {}, **options)


@pytest.fixture(scope="session")
def python(python_example, keeping):
    """python(script, offers={}): what the script came to, on each host."""
    running = Running(python_example, python_example.MICROPYTHON, keeping)
    yield running
    running.module = None  # in-process it keeps a file open, and pytest may keep this object longer than its host


@pytest.fixture(scope="session")
def javascript(javascript_example, keeping):
    """javascript(script, offers={}): what the script came to, on each host."""
    running = Running(javascript_example, javascript_example.QUICKJS, keeping)
    yield running
    running.module = None  # in-process it keeps a file open, and pytest may keep this object longer than its host


@pytest.fixture
def supervisor(tmp_path_factory, monkeypatch):
    """supervisor(**limits): one with these limits, which need not compile what an earlier one has compiled."""
    base = tmp_path_factory.getbasetemp() / "examples"
    monkeypatch.setenv("XDG_STATE_HOME", str(base / "state"))
    with contextlib.ExitStack() as stack:

        def make(**limits):
            made = Supervisor(limits=Limits(**{"wall_s": 60.0} | limits), spares=0, cache_dir=base / "cache")
            return stack.enter_context(made)

        yield make


@pytest.fixture
def limited_python(python_example, supervisor):
    """limited_python(**limits): as `python`, in workers with these limits."""
    return lambda **limits: Running(python_example, python_example.MICROPYTHON, supervisor(**limits))


@pytest.fixture
def limited_javascript(javascript_example, supervisor):
    """limited_javascript(**limits): as `javascript`, in workers with these limits."""
    return lambda **limits: Running(javascript_example, javascript_example.QUICKJS, supervisor(**limits))
