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
    """ACTIVE: seen to hold, from inside a process that was locked down like any worker. MISSING: asked for, and not to
    be had here, or not seen to hold. NOT_NEEDED: it has nothing to act on. OFF: not asked for."""

    ACTIVE = "active"
    MISSING = "missing"
    NOT_NEEDED = "not needed"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """Which layers to apply to workers and compilers. Each is applied where this machine offers it.

    Wasm itself keeps a guest inside its memory. The layers are for the day that it does not: when a guest, by a bug in
    the engine, runs machine code of its own in a worker.

    rlimits       no core dumps, no files written, few descriptors, no locked memory, no processes, a CPU ceiling. The
                  limits of `Limits` hold without it
    oom_score     when memory runs out, the kernel ends workers before the service
    uid           user and group `nobody`, where the supervisor may change to it (root with SETUID, SETGID and KILL)
    capabilities  root's special rights (capabilities): none are left
    no_new_privs  no program can give any rights back; Landlock and seccomp need it
    landlock      no file can be opened, made or run; no TCP; no abstract sockets and no signals to anybody outside
    seccomp       nothing but the system calls that running a guest needs; no new executable memory
    mdwe          the kernel's own refusal of new executable memory, beside the filter's
    namespaces    a network, IPC, UTS and mount namespace of their own (default: off; many containers refuse it)
    undumpable    no process of the same user may read a worker's memory (default: off, or an ordinary user's supervisor
                  could not read it either; a change of user brings it along)
    required      refuse to start unless every layer that is asked for is active or not needed

    A worker whose guest was granted directories (`Wasi(dirs=…)`) can open these, in their mode, and nothing else. It
    has more descriptors, and calls on files that the others have not. Where workers change their user it becomes the
    owner of its directories, root even (without capabilities), if capabilities, no_new_privs, landlock and seccomp all
    hold; else it is `nobody`, too. Without landlock native code in it could open whatever its user can.

    `pdsandbox doctor` and `Supervisor.hardening_report` say which of them hold on a machine.
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


# To be read by who owns the service, beside the layer's name. "It" is a guest that runs machine code of its own, in a
# worker or a compiler. Each is true whatever else is missing: where others guard the same, it is one barrier fewer.
_WITHOUT: Final = {
    Layer.CLEAN_START: "it could find secrets of the service: environment variables or open files",
    Layer.PARENT_DEATH: "it could run on after the service has ended",
    Layer.RLIMITS: "it could use up processes, descriptors and disk, or leave its memory on disk as a core dump",
    Layer.OOM_SCORE: "when memory runs out, the kernel could end the service instead of a worker",
    Layer.NAMESPACES: "one barrier fewer between it and the network",
    Layer.UID: "it would act as the service's user: one barrier fewer between it and that user's files and processes",
    Layer.CAPABILITIES: "it would keep the special rights of the service, root's for example",
    Layer.NO_NEW_PRIVS: "it could gain rights by running a program that gives them, as sudo does",
    Layer.UNDUMPABLE: "other processes of its user could read what guests hold in memory",
    Layer.LANDLOCK_FILES: "one barrier fewer between it and the files of this machine, and in a worker with granted "
    "directories none but its user's rights",
    Layer.LANDLOCK_TCP: "one barrier fewer between it and the network",
    Layer.LANDLOCK_SCOPE: "one barrier fewer between it and other processes, which it could signal or connect to",
    Layer.SECCOMP: "one barrier fewer before files, network and processes, and none before most of the kernel's bugs",
    Layer.MDWE: "one barrier fewer before it can add machine code of its own choice",
}


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer in one kind of process. `detail` says what was seen, or why it is missing and what to do about it."""

    layer: Layer
    state: State
    detail: str

    @property
    def cost(self) -> str:
        """What its absence means for a guest that broke out of wasm ("it"); empty where it is active or not needed."""
        return _WITHOUT[self.layer] if self.state in (State.MISSING, State.OFF) else ""


@dataclass(frozen=True, slots=True)
class HardeningReport:
    """What `Supervisor.hardening_report` returns: each layer, as seen from inside a worker and from inside a compiler.

    hardening  what was asked for
    system     "Linux 6.1.0, x86_64"
    workers    one for each `Layer`, in its order
    compilers  the same; they need more system calls, and make machine code
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
    def lacks(self) -> tuple[str, ...]:
        """`missing` in words, one sentence a reason: which layers, why, and what to do about it."""
        names: dict[str, list[str]] = {}
        for item in self.missing:
            names.setdefault(item.detail, []).append(item.layer.value)
        return tuple(f"{', '.join(layers)}: {why}" for why, layers in names.items())

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
        count = len(self.missing)
        verdict = "all that was asked for is active"
        if count:
            verdict = f"{count} layer{'' if count == 1 else 's'} asked for and missing"
        lines = [f"{self.system}: {verdict}"]
        for who, items in (("worker", self.workers), ("compiler", self.compilers)):
            lines += [f"{who:9} {item.layer.value:20} {item.state.value:11} {item.detail}" for item in items]
        return "\n".join(lines)
