"""Events as lines of the standard `logging` module: which logger, which level, which words, which fields.

Loggers: `pdsandbox.worker`, `pdsandbox.compile`, `pdsandbox.forkserver`, `pdsandbox.events`. A worker's death is INFO,
whatever it died of, and so is the fork server's: whoever called gets it as an error. WARNING is what no caller hears
of. The fields of an event are attributes of the record, each with `pd_` before its name, and `pd_event` is its class;
values are str, int, float, bool or None.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from ..errors import Cause
from ..text import one_line

if TYPE_CHECKING:
    from ..events import Event

# As `logging` has them, which takes 6 ms to import: nobody need spend that who is told nothing.
_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40

# What happens to a healthy plugin is for who debugs; what ends one is for who runs it. By class: see `journal`.
_LINES: Final = {
    "ForkServerStarted": ("forkserver", _DEBUG, "fork server {pid} is warm after {seconds:.3f} s"),
    "ForkServerLost": ("forkserver", _INFO, "fork server {pid} is lost with {children} children: {reason}"),
    "WorkerStarted": ("worker", _DEBUG, "{role} {worker} started, pid {pid}"),
    "WorkerRefused": ("worker", _INFO, "{role} {worker} was refused: {message}"),
    "WorkerReady": ("worker", _DEBUG, "worker {worker}, pid {pid}, is ready after {seconds:.4f} s: {sha256}"),
    "WorkerEnded": ("worker", _INFO, "{role} {worker}, pid {pid}, ended ({cause}): {message}"),
    "Compiled": ("compile", _DEBUG, "compiled {sha256} in {seconds:.3f} s to {artifact_bytes:,} bytes"),
    "CompileFailed": ("compile", _INFO, "could not compile {sha256} ({cause}): {message}"),
    "CacheHit": ("compile", _DEBUG, "found {sha256} in the cache ({where})"),
    "Quarantined": ("worker", _WARNING, "a plugin is quarantined after {failures} failures ({sha256}): {reason}"),
    "EventsDropped": ("events", _WARNING, "{count} events were dropped: the hook, or a logging handler, is slow"),
}


_loggers: dict[str, Any] = {}


def wanted(name: str) -> bool:
    """Whether anybody would see an event of this class.

    Asked by whoever publishes, so without the lock of `logging` that `getLogger` and `isEnabledFor` take: an interrupt
    between two lines of theirs leaves it taken for ever, and the next to wait for it would be the housekeeper.
    """
    room, level, _ = _LINES[name]
    logger = _loggers.get(room)
    if logger is None:
        get_logger = getattr(sys.modules.get("logging"), "getLogger", None)
        if get_logger is None:  # nobody, or nobody yet, has asked for more than is shown anyway
            return level >= _WARNING
        logger = _loggers.setdefault(room, get_logger(f"pdsandbox.{room}"))
    return not logger.disabled and logger.manager.disable < level >= logger.getEffectiveLevel()


def write(event: Event) -> None:
    """One line, if anybody sees it."""
    name = type(event).__name__
    if not wanted(name):
        return
    import logging

    room, level, words = _LINES[name]
    if getattr(event, "cause", None) is Cause.CLOSED:
        level = _DEBUG
    fields = {field: _plain(getattr(event, field)) for field in event.__dataclass_fields__}
    role = "compiler" if fields.get("compiler") else "worker"
    text = words.format(**fields, role=role, where="disk" if fields.get("disk") else "memory")
    extra = {"pd_event": name, **{f"pd_{key}": value for key, value in fields.items()}}
    logging.getLogger(f"pdsandbox.{room}").log(level, "%s", text, extra=extra)


def hook_failed(event: Event, *, first: bool) -> None:
    """While that is handled. One that fails once fails often: the others are for who debugs."""
    import logging

    level = _ERROR if first else _DEBUG
    log = logging.getLogger("pdsandbox.events")
    log.log(level, "the hook failed at %s", type(event).__name__, exc_info=True)


def _plain(value: Any) -> Any:
    """What any formatter can write, on one line."""
    if isinstance(value, Cause):
        return value.value
    return one_line(value, 500) if isinstance(value, str) else value
