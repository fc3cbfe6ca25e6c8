"""Guest code that computes: what its worker costs it (nothing, one hopes), and what each kind of metering costs it.

One call a sample, its answer checked. The worker has every limit switched on, high enough to be of no consequence:
fuel where it is metered, a deadline, RSS. The rival is the same code by the same engine in this process, unlimited.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import wasmtime

from pdsandbox import EngineConfig, Limits, Supervisor, WasmInstance

from . import inprocess
from .crunch import CRUNCH, Crunch, check, units_for
from .guests import binary
from .measure import Bar, Contender, Group, Row, Series

_SECONDS = 1.0
_PROFILE_SECONDS = 0.05
LIMITS = Limits(fuel=inprocess.FUEL_FOREVER, wall_s=600.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to meter, by the arguments of `EngineConfig`."""

    key: str
    title: str
    fuel: bool
    interruptible: bool

    @property
    def config(self) -> EngineConfig:
        """For a supervisor."""
        return EngineConfig(fuel=self.fuel, interruptible=self.interruptible)


FUEL = Profile("fuel", "fuel", fuel=True, interruptible=False)
_NEITHER = Profile("neither", "neither", fuel=False, interruptible=False)
_PROFILES = (
    _NEITHER,
    FUEL,
    Profile("epochs", "epochs", fuel=False, interruptible=True),
    Profile("both", "fuel and epochs", fuel=True, interruptible=True),
)

_LONG_SERIES = (
    Series("guest.worker", f"Supervisor: one call that computes for {_SECONDS:g} s, fuel metered"),
    Series("guest.plain", "wasmtime-py in-process: the same call, fuel metered", short="wasmtime-py in-process"),
)
_LONG_ROWS = (
    Row(
        "guest.wasmtime",
        f"guest code, fuel metered, {_SECONDS:g} s of it",
        "guest.worker",
        "guest.plain",
        bar=Bar(1.05, "issue 4"),
    ),
)

_PROFILE_SERIES = tuple(
    series
    for profile in _PROFILES
    for series in (
        Series(f"profile.worker.{profile.key}", f"Supervisor, metering {profile.title}: one call that computes"),
        Series(
            f"profile.plain.{profile.key}",
            f"wasmtime-py in-process, metering {profile.title}: the same call",
            short=f"wasmtime-py in-process, metering {profile.title}",
            side="peer",
        ),
    )
)
_PROFILE_ROWS = tuple(
    row
    for profile in _PROFILES
    for row in (
        Row(
            f"profile.worker.{profile.key}",
            f"guest code in a worker, metering {profile.title}",
            f"profile.worker.{profile.key}",
            "profile.plain.neither",
        ),
        *(
            (
                Row(
                    f"profile.plain.{profile.key}",
                    f"guest code in-process, metering {profile.title}",
                    f"profile.plain.{profile.key}",
                    "profile.plain.neither",
                ),
            )
            if profile is not _NEITHER
            else ()
        ),
    )
)


def plain_crunch(profile: Profile) -> Crunch:
    """`crunch` in plain wasmtime-py, in this process."""
    engine = inprocess.engine(fuel=profile.fuel, interruptible=profile.interruptible)
    store = inprocess.store(engine, fuel=profile.fuel, interruptible=profile.interruptible)
    export = wasmtime.Instance(store, wasmtime.Module(engine, binary(CRUNCH)), []).exports(store)["crunch"]
    assert isinstance(export, wasmtime.Func)

    def crunch(units: int) -> int:
        answer: int = export(store, units)
        return answer

    return crunch


@contextlib.contextmanager
def worker(profile: Profile) -> Iterator[WasmInstance]:
    """An instance with `crunch`, in a worker."""
    with (
        Supervisor(limits=LIMITS, engine=profile.config, spares=0) as host,
        host.instantiate(host.compile(CRUNCH)) as instance,
    ):
        yield instance


def _contender(key: str, crunch: Crunch, units: int) -> Contender:
    def sample() -> Mapping[str, float]:
        started = time.perf_counter()
        answer = crunch(units)
        taken = time.perf_counter() - started
        check(units, answer)
        return {key: taken}

    return sample


@contextlib.contextmanager
def _open_long() -> Iterator[Sequence[Contender]]:
    with worker(FUEL) as instance:
        plain, isolated = plain_crunch(FUEL), instance.func("crunch")
        units = units_for(_SECONDS, plain)
        check(1, isolated(1))  # warm
        yield (_contender("guest.plain", plain, units), _contender("guest.worker", isolated, units))


@contextlib.contextmanager
def _open_profiles() -> Iterator[Sequence[Contender]]:
    with contextlib.ExitStack() as stack:
        plain = {profile.key: plain_crunch(profile) for profile in _PROFILES}
        isolated = {profile.key: stack.enter_context(worker(profile)).func("crunch") for profile in _PROFILES}
        units = units_for(_PROFILE_SECONDS, plain["neither"])
        for crunch in (*plain.values(), *isolated.values()):
            check(1, crunch(1))  # warm
        yield tuple(
            _contender(f"profile.{where}.{profile.key}", crunches[profile.key], units)
            for profile in _PROFILES
            for where, crunches in (("plain", plain), ("worker", isolated))
        )


GROUP = Group(
    "guest",
    "guest code",
    _LONG_SERIES,
    _LONG_ROWS,
    _open_long,
    rounds=9,
    quick_rounds=2,
    warmup=0,
    caption="Guest code that computes for a second, in a worker and in plain wasmtime-py.",
)
PROFILES = Group(
    "profiles",
    "metering",
    _PROFILE_SERIES,
    _PROFILE_ROWS,
    _open_profiles,
    rounds=20,
    quick_rounds=3,
    warmup=0,
    caption="What stopping a guest costs it: by fuel, by epochs, by both, or only by killing its process.",
)
