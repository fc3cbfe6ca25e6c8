"""What `doctor` finds out: the machine, whether a guest runs, every layer of the lock-down, and the words for it.

Asks a supervisor, as a service would; knows no system call. But for `examine`, pure.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from ..errors import Cause, WasmError
from ..hardening import HardeningReport, Layer, State, hardening_of
from ..locate import wasmtime_library
from ..text import one_line
from . import hosts
from .exits import EXIT_CODES, INCOMPLETE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hardening import LayerReport

__all__ = ["Checkup", "examine"]

_GUEST: Final = '(module (func (export "answer") (result i32) (i32.const 42)))'
# The longest refusal names every layer.
_CUT: Final = 2000

# What a guest that broke out could reach, and the layers each of which closes all of it.
_WAYS: Final = (
    ("the files of this machine", {Layer.LANDLOCK_FILES, Layer.SECCOMP}),
    ("the network", {Layer.NAMESPACES, Layer.SECCOMP}),
    ("other processes of the service's user", {Layer.UID, Layer.SECCOMP}),
    ("root's special rights", {Layer.UID, Layer.CAPABILITIES}),
    ("most of the kernel's bugs", {Layer.SECCOMP}),
)


@dataclass(frozen=True, slots=True)
class Checkup:
    """hardening  "default", "strict" or "off"
    report     None when no worker was ever started
    error      why workers do not run, or None
    """

    hardening: str
    report: HardeningReport | None
    error: WasmError | None

    @property
    def exit_code(self) -> int:
        """0, `INCOMPLETE`, or that of `error`."""
        if self.error is not None:
            return EXIT_CODES[self.error.cause]
        return 0 if self.report is not None and self.report.complete else INCOMPLETE

    @property
    def open_to(self) -> list[str]:
        """What no layer closes to a guest that broke out of wasm."""
        if self.report is None:
            return []
        closed = {item.layer for item in self.report.workers if item.state is State.ACTIVE}
        return [way for way, by in _WAYS if not by & closed and not (way.startswith("root") and not _is_root())]

    def document(self) -> dict[str, Any]:
        """The object that `--json` prints: `HardeningReport.as_dict`, and how it went."""
        from .report import error_json

        facts: dict[str, Any] = {
            "ok": not self.exit_code,
            "exit_code": self.exit_code,
            "runs": self.error is None,
            "error": None if self.error is None else error_json(self.error),
            "machine": {
                "pdsandbox": __version__,
                "python": sys.version.split()[0],
                "wasmtime": _wasmtime(),
                "uid": _uid(),
            },
            "missing": [] if self.report is None else [item.layer.name.lower() for item in self.report.missing],
            "open_to": self.open_to,
        }
        if self.report is None:
            nothing = {"system": _system(), "complete": False, "workers": [], "compilers": []}
            return facts | nothing | {"hardening": {"name": self.hardening}}
        told = self.report.as_dict()
        return facts | told | {"hardening": {"name": self.hardening, **told["hardening"]}}

    # --- for people ---

    def head(self) -> list[str]:
        """The verdict, the machine, and whether workers run."""
        system = _system() if self.report is None else self.report.system
        uid = _uid()
        user = "" if uid is None else "; root" if uid == 0 else f"; an ordinary user (uid {uid})"
        wasmtime = _wasmtime()
        engine = f"wasmtime {wasmtime}" if wasmtime else "no wasmtime that fits"
        lines = [
            self._verdict(),
            f"machine: {system}; Python {sys.version.split()[0]}, pdsandbox {__version__}, {engine}{user}",
        ]
        if self.error is None:
            return [*lines, "workers: run (a guest was compiled, started and called)", ""]
        return [*lines, f"workers: do not run: {one_line(self.error.message, _CUT)}", ""]

    def _verdict(self) -> str:
        if self.error is not None or self.report is None:
            return "WORKERS DO NOT RUN HERE"
        if self.hardening == "off":
            return "NOT LOCKED DOWN: hardening off is for debugging"
        missing = len(self.report.missing)
        if missing:
            refuses = 'Supervisor(hardening="strict") refuses to start here'
            return f"WEAKER THAN ASKED FOR: {missing} layer{'' if missing == 1 else 's'} missing; {refuses}"
        return "LOCKED DOWN: all that was asked for is active"

    def rows(self) -> Iterator[tuple[str, str, str, list[str]]]:
        """(layer, a worker's state, a compiler's, details) of each layer."""
        if self.report is None:
            return
        for worker, compiler in zip(self.report.workers, self.report.compilers, strict=True):
            both = (("worker", worker), ("compiler", compiler))
            told = [(who, _detail(item)) for who, item in both if item.state is not State.OFF or worker != compiler]
            alike = len({detail for _, detail in told}) == 1 and len(told) == 2
            details = [told[0][1]] if alike else [f"{who}: {detail}" for who, detail in told]
            yield worker.layer.value, _state(worker), _state(compiler), details

    def tail(self) -> list[str]:
        """What is missing and what is off: why, the cost, what to do."""
        if self.report is None:
            return []
        lines = []
        if self.report.missing:
            lines += ["", 'Missing ("it" is a guest that broke out of wasm and runs machine code of its own):']
        missing = self.report.missing
        for said, why in zip(self.report.lacks, dict.fromkeys(item.detail for item in missing), strict=True):
            lines.append(f"  {said}")
            lines += [f"    cost: {item.cost}" for item in missing if item.detail == why]
        off = [item for item in self.report.workers if item.state is State.OFF]
        if off:
            lines += ["", "Off, because nobody asked for it:"]
        lines += [f"  {item.layer.value}: {item.cost}" for item in off]
        if self.open_to:
            lines += ["", f"Nothing but wasm itself stands between a guest and: {'; '.join(self.open_to)}"]
        return lines

    def lines(self) -> Iterator[str]:
        """All of it without colours or boxes."""
        yield from self.head()
        if self.report is not None:
            yield f"{'layer':20} {'worker':11} {'compiler':11} as seen from inside"
        for name, worker, compiler, details in self.rows():
            yield f"{name:20} {worker:11} {compiler:11} {details[0] if details else ''}".rstrip()
            yield from (f"{'':44} {detail}" for detail in details[1:])
        yield from self.tail()


def _state(item: LayerReport) -> str:
    return "MISSING" if item.state is State.MISSING else item.state.value


def _detail(item: LayerReport) -> str:
    return "see below" if item.state is State.MISSING else item.detail


def _uid() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None


def _is_root() -> bool:
    return _uid() == 0


def _system() -> str:
    return sysconfig.get_platform()


def _wasmtime() -> str | None:
    try:
        return wasmtime_library()[1]
    except (ImportError, OSError):
        return None


def examine(hardening: str) -> Checkup:
    """Start a supervisor, ask it, and run a guest. What is missing is for the report to say, not for a refusal."""
    asked = hardening_of(hardening)
    report = None
    try:
        with hosts.open_supervisor(replace(asked, required=False)) as host:
            report = replace(host.hardening_report(), hardening=asked)
            with host.instantiate(host.compile(_GUEST)) as instance:
                instance.call("answer", [])
    except WasmError as exc:
        return Checkup(hardening, report, exc)
    except OSError as exc:  # out of descriptors before anything was started
        from ..errors import InstantiationError

        return Checkup(hardening, report, InstantiationError(str(exc), cause=Cause.HOST))
    return Checkup(hardening, report, None)
