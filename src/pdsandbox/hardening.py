"""What a worker may be locked down with, and the report on what it is: data, and words for a service's owner.

Knows no system call; what each layer does is `worker.lockdown`'s business.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

__all__ = ["OFF", "Hardening", "HardeningReport", "Layer", "LayerReport", "State", "hardening_of"]


class Layer(enum.Enum):
    """One thing that is between native code in a worker and the rest of the machine, in the order of application."""

    CLEAN_START = "clean start"
    PARENT_DEATH = "parent-death signal"
    RLIMITS = "resource limits"
    OOM_SCORE = "oom score"
    NAMESPACES = "namespaces"
    UID = "user id"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVS = "no new privileges"
    UNDUMPABLE = "not dumpable"
    LANDLOCK_FILES = "landlock: files"
    LANDLOCK_TCP = "landlock: tcp"
    LANDLOCK_SCOPE = "landlock: scope"
    SECCOMP = "seccomp filter"
    MDWE = "no executable gain"


class State(enum.Enum):
    """ACTIVE: seen to hold, from inside a process that was locked down like any worker. MISSING: asked for, and not
    to be had here. NOT_NEEDED: there is nothing that it could take away. OFF: not asked for."""

    ACTIVE = "active"
    MISSING = "missing"
    NOT_NEEDED = "not needed"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """Which layers to apply to workers and compilers. Each is applied where this machine offers it.

    rlimits       no core dumps, no files written, few descriptors, no locked memory, no processes, a CPU ceiling. The
                  limits of `Limits` hold without it
    oom_score     the kernel out of memory ends workers before the service
    uid           user and group `nobody`, where the supervisor may change to it (root with SETUID, SETGID and KILL)
    capabilities  none are left
    no_new_privs  no setuid program can give any back; Landlock and seccomp need it
    landlock      no file can be opened, made or run; no TCP; no abstract sockets and no signals to anybody outside
    seccomp       nothing but the system calls that running a guest needs; no new executable memory
    mdwe          the kernel's own refusal of new executable memory, beside the filter's
    namespaces    a network, IPC, UTS and mount namespace of their own (default: off; many containers refuse it)
    undumpable    no process of the same user may read a worker's memory (default: off, or an ordinary user's supervisor
                  could not read it either; a change of user brings it along)
    required      refuse to start unless every layer that is asked for is active or not needed
    """

    rlimits: bool = True
    oom_score: bool = True
    uid: bool = True
    capabilities: bool = True
    no_new_privs: bool = True
    landlock: bool = True
    seccomp: bool = True
    mdwe: bool = True
    namespaces: bool = False
    undumpable: bool = False
    required: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isinstance(getattr(self, field.name), bool):
                raise TypeError(f"Hardening.{field.name} takes True or False, not {getattr(self, field.name)!r}")
        if (self.landlock or self.seccomp) and not self.no_new_privs:
            raise ValueError("landlock and seccomp need no_new_privs: the kernel refuses them without it")

    def wants(self, layer: Layer) -> bool:
        """Whether `layer` is asked for. CLEAN_START and PARENT_DEATH always are."""
        name = _FIELD.get(layer)
        return name is None or bool(getattr(self, name))


_FIELD: Final = {
    Layer.RLIMITS: "rlimits",
    Layer.OOM_SCORE: "oom_score",
    Layer.NAMESPACES: "namespaces",
    Layer.UID: "uid",
    Layer.CAPABILITIES: "capabilities",
    Layer.NO_NEW_PRIVS: "no_new_privs",
    Layer.UNDUMPABLE: "undumpable",
    Layer.LANDLOCK_FILES: "landlock",
    Layer.LANDLOCK_TCP: "landlock",
    Layer.LANDLOCK_SCOPE: "landlock",
    Layer.SECCOMP: "seccomp",
    Layer.MDWE: "mdwe",
}

OFF: Final = Hardening(
    rlimits=False,
    oom_score=False,
    uid=False,
    capabilities=False,
    no_new_privs=False,
    landlock=False,
    seccomp=False,
    mdwe=False,
)
_NAMED: Final = {"default": Hardening(), "strict": Hardening(required=True), "off": OFF}


def hardening_of(value: object) -> Hardening:
    """The `Hardening` that `Supervisor(hardening=value)` means; ValueError or TypeError, saying what is possible."""
    if value is None:
        return _NAMED["default"]
    if isinstance(value, Hardening):
        return value
    if isinstance(value, str):
        if value not in _NAMED:
            raise ValueError(f'hardening takes "default", "strict", "off" or a Hardening, not {value!r}')
        return _NAMED[value]
    raise TypeError(f'hardening takes "default", "strict", "off" or a Hardening, not {type(value).__name__}')


#: What native code in a worker could do, were this layer alone missing.
_WITHOUT: Final = {
    Layer.CLEAN_START: "a worker could hold secrets of the service: environment, heap, open files",
    Layer.PARENT_DEATH: "a worker could outlive the service",
    Layer.RLIMITS: "a worker could fill the disk, use up descriptors and processes, or leave core dumps",
    Layer.OOM_SCORE: "the kernel out of memory could end the service instead of a worker",
    Layer.NAMESPACES: "the filter alone would be between a worker and the network",
    Layer.UID: "a worker would act as the service's own user: what that may read and signal is guarded by fewer layers",
    Layer.CAPABILITIES: "a worker would keep privileges of root",
    Layer.NO_NEW_PRIVS: "a worker could gain privileges by running a setuid program",
    Layer.UNDUMPABLE: "other processes of the same user could read a worker's memory",
    Layer.LANDLOCK_FILES: "the filter alone would be between a worker and the files",
    Layer.LANDLOCK_TCP: "the filter alone would be between a worker and the network",
    Layer.LANDLOCK_SCOPE: "the filter alone would be between a worker and signals to other processes",
    Layer.SECCOMP: "a worker could use every system call: network, processes, new machine code, kernel bugs",
    Layer.MDWE: "the filter alone would be between a worker and new machine code",
}


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer in one kind of process. `detail` says what was seen, or why it is missing and what to do about it."""

    layer: Layer
    state: State
    detail: str

    @property
    def cost(self) -> str:
        """What its absence means for safety, in words; empty where it is active or not needed."""
        return _WITHOUT[self.layer] if self.state in (State.MISSING, State.OFF) else ""


@dataclass(frozen=True, slots=True)
class HardeningReport:
    """What `Supervisor.hardening_report` returns: each layer, as seen from inside a worker and from inside a compiler.

    system   "Linux 6.1.0, x86_64"
    """

    hardening: Hardening
    system: str
    workers: tuple[LayerReport, ...]
    compilers: tuple[LayerReport, ...]

    @property
    def missing(self) -> tuple[LayerReport, ...]:
        """What was asked for and is not to be had, each layer once."""
        seen = {item.layer: item for item in (*self.compilers, *self.workers) if item.state is State.MISSING}
        return tuple(seen[layer] for layer in Layer if layer in seen)

    @property
    def complete(self) -> bool:
        """Whether all that was asked for holds."""
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""

        def rows(items: tuple[LayerReport, ...]) -> list[dict[str, str]]:
            return [
                {
                    "layer": item.layer.name.lower(),
                    "state": item.state.value,
                    "detail": item.detail,
                    "cost": item.cost,
                }
                for item in items
            ]

        return {
            "system": self.system,
            "complete": self.complete,
            "hardening": asdict(self.hardening),
            "workers": rows(self.workers),
            "compilers": rows(self.compilers),
        }

    def __str__(self) -> str:
        lines = [f"{self.system}: {'all that was asked for is active' if self.complete else 'something is missing'}"]
        for who, items in (("worker", self.workers), ("compiler", self.compilers)):
            lines += [f"{who:9} {item.layer.value:20} {item.state.value:11} {item.detail}" for item in items]
        return "\n".join(lines)
