"""The interface that every host implements, after the Rust traits WasmHost, WasmModule and WasmInstance.

One conformance suite runs over all hosts. A host lists what it cannot do in `missing`; nothing else may differ.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from .errors import CallError, WasmError
from .externs import ExportType, FuncType, ImportType
from .imports import WasmImports
from .values import WasmVal

if TYPE_CHECKING:
    from .limits import Limits
    from .plugin import Plugin
    from .pool import Pool
    from .restarts import RestartPolicy
    from .wasi import Output, RunResult, Wasi  # its classes take 5 ms to make, which most programs need not spend

__all__ = ["Capability", "WasmHost", "WasmInstance", "WasmModule"]


class Capability(enum.Enum):
    """What a host may lack."""

    ISOLATION = "isolation"  #: a guest that breaks out harms only its own process
    INDEPENDENCE = "independence"  #: an instance waits for no other, and outlives any other
    WALL_CLOCK = "wall_clock"  #: deadlines are enforced
    RSS = "rss"  #: resident memory is bounded
    KILL = "kill"  #: a running call can be ended from another thread
    COMPILE_LIMITS = "compile_limits"  #: time and memory of a compilation are bounded


class WasmModule(abc.ABC):
    """A compiled module, bound to the host that compiled it."""

    @abc.abstractmethod
    def exports(self) -> list[str]:
        """Names of all exports, in declaration order."""

    @abc.abstractmethod
    def export_types(self) -> list[ExportType]:
        """All exports with their types, in declaration order."""

    @abc.abstractmethod
    def imports(self) -> list[ImportType]:
        """All imports, in declaration order: objects with `.module`, `.name` and `.type`."""

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the source as given (a text's UTF-8 encoding)."""

    @abc.abstractmethod
    def signature(self, name: str) -> FuncType:
        """The type of the exported function `name`; CallError when there is none."""


class WasmInstance(abc.ABC):
    """One instance of a module. Any thread may use it; calls take turns. A context manager that closes it."""

    @abc.abstractmethod
    def call(
        self,
        func: str,
        args: Sequence[WasmVal | int | float] = (),
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[WasmVal]:
        """Call the export `func`. `fuel` and `wall_s` (seconds) are for this call only.

        Raises CallError, MemoryAccessError, FuelExhausted, Trap and its subclasses.
        """

    @abc.abstractmethod
    def call_many(
        self,
        func: str,
        rows: Iterable[Sequence[WasmVal | int | float]],
        *,
        fuel: int | None = None,
        wall_s: float | None = None,
    ) -> list[list[WasmVal]]:
        """Call `func` once per row; one budget of fuel and time for all. A failing row raises its error with `.row`
        and `.results` (of the rows before it)."""

    @abc.abstractmethod
    def func(self, name: str) -> Callable[..., Any]:
        """A callable over plain values: one result is returned bare, none as None, several as a tuple."""

    def run(self, *, fuel: int | None = None, wall_s: float | None = None) -> RunResult:
        """Run a command: its export `_start`, once in an instance's life. `fuel` and `wall_s` as in `call`.

        Returns when the program ends by itself, whatever its exit code. Raises CallError when there is no `_start`;
        otherwise what `call` raises, with what the program had written as `.output`.
        """
        raise CallError(f"{type(self).__name__} does not run commands")

    def output(self) -> Output:
        """What the guest has written to captured streams since this was last asked, or since `run` returned it."""
        from .wasi import Output

        return Output()

    @abc.abstractmethod
    def memory_read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the exported memory; MemoryAccessError outside it or without one."""

    @abc.abstractmethod
    def memory_read_into(self, offset: int, buffer: Any) -> int:
        """Fill all of `buffer` (writable and contiguous, such as a bytearray) with the memory at `offset`, or nothing;
        how many bytes that were. MemoryAccessError as for `memory_read`."""

    @abc.abstractmethod
    def memory_write(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, or nothing: MemoryAccessError outside the memory or without one."""

    @abc.abstractmethod
    def memory_grow(self, pages: int) -> int:
        """Grow the exported memory by `pages` (65,536 bytes, if its type says nothing else), as the guest's own
        `memory.grow` would: the number of pages before, or -1 where its maximum, `memory_bytes` or the machine does not
        allow that. By 0 pages: how many it has. MemoryAccessError without a memory."""

    @abc.abstractmethod
    def set_fuel(self, fuel: int) -> None:
        """One budget that the calls after this draw down together, until set again; nothing where none is metered."""

    @abc.abstractmethod
    def fuel_consumed(self) -> int | None:
        """Fuel used over the instance's life, instantiation included; None where it is not metered."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; a running call ends with CallError, cause CLOSED. Twice is allowed."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End the instance and a running call at once, from any thread: WorkerCrashed, cause CANCELLED."""

    @property
    @abc.abstractmethod
    def alive(self) -> bool:
        """Whether calls can still succeed."""

    def _why_gone(self) -> WasmError | None:
        """For plugins and pools: what ended an instance that nobody was using. Every use of it says so."""
        try:
            self.memory_read(0, 0)
        except WasmError as exc:
            return exc
        return None

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The process that the guest runs in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class WasmHost(abc.ABC):
    """Compiles and instantiates. Safe to share between threads. A context manager that closes it."""

    #: Capabilities that this host lacks.
    missing: frozenset[Capability] = frozenset()
    #: What each guest may use.
    limits: Limits

    @abc.abstractmethod
    def compile(self, wasm: bytes | str) -> WasmModule:
        """Compile a module: bytes are the binary format, a str is the text format. Raises CompileError."""

    @abc.abstractmethod
    def instantiate(
        self, module: WasmModule, imports: WasmImports | None = None, *, wasi: Wasi | None = None
    ) -> WasmInstance:
        """A new instance, with nothing of WASI but what `wasi` grants. With it, a reactor's `_initialize` runs, too.

        Raises InstantiationError, and what the start function can end in: FuelExhausted, WallClockExceeded,
        RssExceeded, WorkerCrashed, GuestExit."""

    def plugin(
        self,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
    ) -> Plugin:
        """`module`, served by one instance at a time, which is replaced when it is gone as `restart` says. Nothing is
        started before the first call. Raises TypeError for what is no `RestartPolicy`."""
        from .plugin import Plugin

        return Plugin(self, module, imports, wasi=wasi, restart=restart)

    def _on_quarantine(  # noqa: B027 - not abstract: most hosts have nobody to tell
        self, module: WasmModule, failures: int, error: WasmError, left_s: float | None
    ) -> None:
        """For plugins and pools: one of `module` is quarantined for `left_s` seconds (None: until it is reset) after so
        many failures, `error` the last. A host that tells what happens tells of it."""

    def pool(
        self,
        module: WasmModule,
        imports: WasmImports | None = None,
        *,
        min: int = 1,  # noqa: A002 - as other pools call it
        max: int | None = None,  # noqa: A002
        queue: int = 100,
        timeout: float | None = 30.0,
        reset: str = "never",
        max_calls: int | None = None,
        max_idle_s: float | None = None,
        tenant_running: int | None = None,
        tenant_queue: int | None = None,
        restart: RestartPolicy | None = None,
        wasi: Wasi | None = None,
    ) -> Pool:
        """`module`, served by several instances that are started before they are asked for, in the background.

        min, max        instances that are kept ready or in use, and that there are at most (default: 1, and the number
                        of cores or `min`); at most 10,000
        queue           calls that may wait for one to be free; one more is PoolFull (at most a million)
        timeout         seconds that each may wait unless it says otherwise; then PoolTimeout. None: for ever
        reset           "each_call": every call gets an instance that has served nobody; "never": one serves many calls,
                        and its memory is what the call before left
        max_calls       calls after which an instance is replaced (default: none)
        max_idle_s      seconds after which one that is not used ends, if there are more than `min` (default: none)
        tenant_running  calls of one tenant that may run at once, and so its instances (default: `max`)
        tenant_queue    calls of one tenant that may wait (default: `queue`)
        restart         what becomes of the pool when its instances die; failures of all of them count together

        Returns at once: `Pool.wait_ready` waits, and tells why there is nothing to wait for. A pool that is dropped
        ends; `close` says when. Raises ValueError for sizes that make no sense, TypeError for what is no
        `RestartPolicy`.
        """
        from .pool import Pool
        from .sizes import Sizes, usable_cores

        sizes = Sizes(
            min=min,
            max=usable_cores(min) if max is None else max,
            queue=queue,
            reset=reset,
            max_calls=max_calls,
            max_idle_s=max_idle_s,
            tenant_running=tenant_running,
            tenant_queue=tenant_queue,
        )
        return Pool(self, module, imports, sizes, timeout=timeout, wasi=wasi, restart=restart)

    @abc.abstractmethod
    def close(self) -> None:
        """Close every instance and release everything. Twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
