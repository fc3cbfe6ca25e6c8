"""What supervisor and fork server say to each other: one packet a message over a SOCK_SEQPACKET socket pair.

Descriptors travel beside a packet: with SPAWN the child's ends (requests to read, replies to write, socket,
standard error to write) and, for a worker that will load at once, the module; with HELLO and SPAWNED a pidfd. The
fork server runs nobody's code but ours, but it is decoded as strictly as everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Self

from ..hardening import Layer, State
from .codec import ProtocolError, Reader, Writer

PACKET_BYTES: Final = 64 << 10
_LAYERS: Final = tuple(Layer)
_STATES: Final = tuple(State)
SPAWN_FDS: Final = 4
#: Exit status (EX_OSERR) of a child that could not be locked down; why is its last line on standard error.
NOT_LOCKED_DOWN: Final = 71


class Role:
    """What a child is for."""

    WORKER: Final = 0
    COMPILER: Final = 1
    COUNT: Final = 2


@dataclass(frozen=True, slots=True)
class Config:
    """The first packet: the engine, the limits of all instances, the layers to lock them down with.

    data_more  RLIMIT_DATA above the base
    cpu_s      the RLIMIT_CPU to start with
    cgroup     the directory to make leaves in, whose limits are `rss_bytes`; "" for none
    instances  the most in one worker
    brief      one worker will be all: what only later ones would gain by is left out
    """

    KIND: ClassVar[int] = 1
    library: str
    fuel: bool
    interruptible: bool
    stack_bytes: int
    data_more: int | None
    compiler_data_more: int | None
    memory_bytes: int | None
    memories: int
    table_elements: int | None
    host_calls: int | None
    host_call_bytes: int | None
    message_bytes: int
    layers: frozenset[Layer]
    cpu_s: int | None
    compiler_cpu_s: int | None
    cgroup: str
    rss_bytes: int | None
    compiler_rss_bytes: int | None
    instances: int
    brief: bool = False

    def payload(self) -> bytes:
        w = Writer()
        w.path(self.library)
        w.u8(self.fuel)
        w.u8(self.interruptible)
        w.u64(self.stack_bytes)
        w.optional(self.data_more)
        w.optional(self.compiler_data_more)
        w.optional(self.memory_bytes)
        w.u32(self.memories)
        w.optional(self.table_elements)
        w.optional(self.host_calls)
        w.optional(self.host_call_bytes)
        w.u64(self.message_bytes)
        w.optional(self.cpu_s)
        w.optional(self.compiler_cpu_s)
        w.path(self.cgroup)
        w.optional(self.rss_bytes)
        w.optional(self.compiler_rss_bytes)
        w.u32(self.instances)
        w.u8(self.brief)
        w.u32(sum(1 << n for n, layer in enumerate(_LAYERS) if layer in self.layers))
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(
            library=r.path(),
            fuel=r.flag(),
            interruptible=r.flag(),
            stack_bytes=r.u64(),
            data_more=r.optional(),
            compiler_data_more=r.optional(),
            memory_bytes=r.optional(),
            memories=r.u32(),
            table_elements=r.optional(),
            host_calls=r.optional(),
            host_call_bytes=r.optional(),
            message_bytes=r.u64(),
            cpu_s=r.optional(),
            compiler_cpu_s=r.optional(),
            cgroup=r.path(),
            rss_bytes=r.optional(),
            compiler_rss_bytes=r.optional(),
            instances=r.u32(),
            brief=r.flag(),
            layers=cls._layers(r.u32()),
        )

    @staticmethod
    def _layers(mask: int) -> frozenset[Layer]:
        if mask >> len(_LAYERS):
            raise ProtocolError("a layer that does not exist")
        return frozenset(layer for n, layer in enumerate(_LAYERS) if mask >> n & 1)


@dataclass(frozen=True, slots=True)
class Spawn:
    """Fork a child of this role; `ticket` names it from now on.

    `late`: its LOAD brings functions of the user's, or directories, which it must take in before it locks itself down.
    `unpickler`: for functions, the directory that cloudpickle was imported from where they were pickled; "" for none.
    """

    KIND: ClassVar[int] = 2
    ticket: int
    role: int
    late: bool = False
    unpickler: str = ""

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        w.u8(self.role)
        w.u8(self.late)
        w.path(self.unpickler)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(r.u64(), r.choice(Role.COUNT), r.flag(), r.path())


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The supervisor has noted how the child ended: its pid may be reused."""

    KIND: ClassVar[int] = 3
    ticket: int

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(r.u64())


@dataclass(frozen=True, slots=True)
class Kill:
    """End this child: the supervisor could not take its pidfd."""

    KIND: ClassVar[int] = 4
    ticket: int

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(r.u64())


class Seen(NamedTuple):
    """What the survey says about one layer in one kind of child."""

    role: int
    layer: Layer
    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Hello:
    """The fork server is warm. With it comes a pidfd of its own, which cannot be confused with a later process.

    `seen`: how its children are locked down. `data`, `compiler_data`: their RLIMIT_DATA.
    """

    KIND: ClassVar[int] = 16
    pid: int
    seen: tuple[Seen, ...] = ()
    data: int | None = None
    compiler_data: int | None = None

    def payload(self) -> bytes:
        w = Writer()
        w.u32(self.pid)

        def one(seen: Seen) -> None:
            w.u8(seen.role)
            w.u8(_LAYERS.index(seen.layer))
            w.u8(_STATES.index(seen.state))
            w.text(seen.detail)

        w.many(self.seen, one)
        w.optional(self.data)
        w.optional(self.compiler_data)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        def one() -> Seen:
            role, layer, state = r.choice(Role.COUNT), r.choice(len(_LAYERS)), r.choice(len(_STATES))
            return Seen(role, _LAYERS[layer], _STATES[state], r.text())

        return cls(r.u32(), tuple(r.many(one, 7, Role.COUNT * len(_LAYERS))), r.optional(), r.optional())


@dataclass(frozen=True, slots=True)
class Spawned:
    """The child runs. With it comes its pidfd."""

    KIND: ClassVar[int] = 17
    ticket: int
    pid: int

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        w.u32(self.pid)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(r.u64(), r.u32())


@dataclass(frozen=True, slots=True)
class Refused:
    """No child: `errno` of what this machine refused."""

    KIND: ClassVar[int] = 18
    ticket: int
    errno: int

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        w.u32(self.errno)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        return cls(r.u64(), r.u32())


@dataclass(frozen=True, slots=True)
class Exited:
    """The child ended, and stays a zombie until acknowledged. Either `signal` or `exit_code` is set.

    cpu_us, peak_bytes  what it used, where that can be known
    """

    KIND: ClassVar[int] = 19
    ticket: int
    signal: int | None
    exit_code: int | None
    cpu_us: int | None = None
    peak_bytes: int | None = None

    def payload(self) -> bytes:
        w = Writer()
        w.u64(self.ticket)
        w.optional(self.signal)
        w.optional(self.exit_code)
        w.optional(self.cpu_us)
        w.optional(self.peak_bytes)
        return w.payload()

    @classmethod
    def read(cls, r: Reader) -> Self:
        ticket, signal, exit_code = r.u64(), r.optional(), r.optional()
        if (signal is None) == (exit_code is None):
            raise ProtocolError("a process ends by a signal or with an exit code")
        return cls(ticket, signal, exit_code, r.optional(), r.optional())


Packet = Config | Spawn | Acknowledge | Kill | Hello | Spawned | Refused | Exited
_PACKETS: Final[dict[int, type[Packet]]] = {
    cls.KIND: cls for cls in (Config, Spawn, Acknowledge, Kill, Hello, Spawned, Refused, Exited)
}


def encode(packet: Packet) -> bytes:
    """One packet."""
    return bytes([packet.KIND]) + packet.payload()


def decode(data: bytes) -> Packet:
    """The packet in `data`; ProtocolError when there is none."""
    r = Reader(data)
    cls = _PACKETS.get(r.u8())
    if cls is None:
        raise ProtocolError(f"unknown packet kind {data[0]}")
    packet = cls.read(r)
    r.end()
    return packet
