"""Fixtures for all tests: nothing may survive a test; every conformance test runs on every host.

`host` is one shared host a kind, with default limits; `host_factory` makes one with other limits and closes it;
`instantiate` compiles and instantiates in one go and closes. A marker `requires(Capability.X)` passes over a host
that lists X as missing. `piped` keeps the supervisor from copying guest memory without the worker's help; with
`patience`, guests that can be interrupted survive that on a busy machine, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from copying import refuse_copies
from leaks import PATIENCE_S, Holdings, adopt_orphans

GUESTS = Path(__file__).parent / "guests"
# "module" shares workers: see `neighbours`; "asyncio" runs on an event loop: see `sideways`.
HOST_KINDS = ("wasmtime", "supervisor", "module", "asyncio")


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("pdsandbox", deadline=None)
hypothesis.settings.load_profile("pdsandbox")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(capability, …): what a host must not list as missing")
    config.addinivalue_line(
        "markers",
        "orphans: kills a process on purpose whose children then become ours; they must die, and are reaped here",
    )
    config.stash[_subreaper] = adopt_orphans()


_subreaper = pytest.StashKey[bool]()
_missing: dict[str, Any] = {}  # by kind of host


@pytest.fixture(scope="session", autouse=True)
def _not_the_users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that tests run keep their compiled modules, and the key for them, in a directory of the session's."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("xdg")
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        patch.setenv("XDG_STATE_HOME", str(base / "state"))
        yield


def _is_artifact(target: str) -> bool:
    return target.startswith("/memfd:")


@pytest.fixture(autouse=True)
def _nothing_survives(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process and no descriptor that this test has opened survives it.

    Hosts with a wider scope stand before the test and so in its baseline; only their cache of compiled modules
    (sealed memfds) may grow, and is counted when they close.
    """
    before = Holdings()
    yield
    shared = not {"host", "workers"}.isdisjoint(request.fixturenames)
    orphans = request.node.get_closest_marker("orphans") is not None
    left = before.extra(reap=orphans, ignore=_is_artifact if shared else lambda _target: False)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def wat() -> Callable[[str], str]:
    """The text of tests/guests/NAME.wat."""
    return lambda name: (GUESTS / f"{name}.wat").read_text(encoding="utf-8")


@pytest.fixture(scope="session", params=HOST_KINDS)
def host_kind(request: pytest.FixtureRequest) -> str:
    """Which host the test runs on."""
    kind: str = request.param
    return kind


def make_host(kind: str, *, engine: Any = None, cache_dir: Path | None = None, **limits: Any) -> Any:
    """A host of this kind. Where time is limited at all, and the test does not ask, there is plenty of it; and no
    spare worker comes and goes by itself, so that processes and descriptors can be counted around each test."""
    import pdsandbox

    engine = engine or pdsandbox.EngineConfig()
    if kind == "wasmtime":
        return pdsandbox.WasmtimeHost(limits=pdsandbox.Limits(**limits), engine=engine)
    cls: Any = pdsandbox.Supervisor
    if kind == "module":
        from neighbours import Neighbourly as cls  # noqa: N813
    if kind == "asyncio":
        from sideways import Sideways as cls  # noqa: N813
    return cls(limits=pdsandbox.Limits(**{"wall_s": 60.0} | limits), engine=engine, spares=0, cache_dir=cache_dir)


@contextlib.contextmanager
def lasting_host(kind: str, *, beside: Any = None, **options: Any) -> Iterator[Any]:
    """A host that many tests share, warm: its fork server runs before any test's baseline. One `beside` another, older
    one is closed before it; the compiled modules of both are counted then, for the older one's have come meanwhile."""
    before = Holdings()
    shared = make_host(kind, **options)
    shared.instantiate(shared.compile('(module (func (export "warm")))')).close()
    yield shared
    shared.close()
    left = before.extra(ignore=_is_artifact if beside is not None else lambda _target: False)
    assert not left, f"closing the shared {kind} host left behind:\n  " + "\n  ".join(left)


@pytest.fixture(scope="session")
def host(host_kind: str) -> Iterator[Any]:
    """One host a kind, shared by the whole session."""
    with lasting_host(host_kind) as shared:
        yield shared


@pytest.fixture(scope="session")
def fuelled(host_kind: str, host: Any) -> Iterator[Any]:
    """Another one, whose calls have fuel for a tenth of a second: a host of its own takes longer to start."""
    with lasting_host(host_kind, beside=host, fuel=50_000_000) as shared:
        yield shared


@pytest.fixture(scope="session")
def keeping(host_kind: str, host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for real programs, whose compilation takes seconds: it happens once a run, for all hosts but the one in this
    process, which cannot keep what it compiles."""
    if host_kind == "wasmtime":
        yield host
        return
    base = tmp_path_factory.getbasetemp()
    shared = base if "PYTEST_XDIST_WORKER" not in os.environ else base.parent
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(shared / "kept-key"))
            made = stack.enter_context(lasting_host(host_kind, beside=host, cache_dir=shared / "kept"))
        yield made


@pytest.fixture
def host_factory(host_kind: str) -> Iterator[Callable[..., Any]]:
    """Makes hosts with the given limits (and `engine=`); they are closed after the test."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(make_host(host_kind, **options))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()


@pytest.fixture
def instantiate(host: Any) -> Iterator[Callable[..., Any]]:
    """instantiate(source, imports=None, on=host): a new instance, closed after the test."""
    made: list[Any] = []

    def make(source: bytes | str, imports: Any = None, *, on: Any = None) -> Any:
        chosen = host if on is None else on
        made.append(chosen.instantiate(chosen.compile(source), imports))
        return made[-1]

    yield make
    for each in reversed(made):
        each.close()


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory goes through the worker's pipes, and takes its part in it: the kernel refuses copies between processes,
    as it does for another user's worker, or one that is not dumpable."""
    refuse_copies(monkeypatch, errno.EPERM)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that is interrupted at its deadline is given time to end on a busy machine, too: as long as its worker's
    own timer, a second, and not a tenth of that."""
    from pdsandbox.supervisor import channel, conversation

    for module in (channel, conversation):
        monkeypatch.setattr(module, "INTERRUPT_GRACE_S", PATIENCE_S)


@pytest.fixture(autouse=True)
def _capabilities(request: pytest.FixtureRequest) -> None:
    """Pass over a host for what it lists as missing, and for nothing else."""
    asked = {capability for mark in request.node.iter_markers("requires") for capability in mark.args}
    if not asked:
        return
    kind = request.getfixturevalue("host_kind")
    if kind not in _missing:
        with make_host(kind) as made:
            _missing[kind] = made.missing
    missing = sorted(capability.value for capability in asked & _missing[kind])
    if missing:
        pytest.skip(f"the {kind} host lists as missing: {', '.join(missing)}")
