"""pdsandbox: run untrusted WebAssembly plugins, each in its own locked-down worker process.

Public names load on first use, so that the fork server and the workers, which live in this package too, import
only what they need.
"""

from __future__ import annotations

# As type checkers know it; importing `typing` takes 10 ms, which a command spends after it has begun with more urgent
# things.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .accounting import receipts as receipts
    from .actor import WasmActor as WasmActor
    from .aio.host import AsyncSupervisor as AsyncSupervisor
    from .aio.instance import AsyncInstance as AsyncInstance
    from .aio.plugin import AsyncPlugin as AsyncPlugin
    from .aio.pool import AsyncPool as AsyncPool
    from .errors import CallError as CallError
    from .errors import Cause as Cause
    from .errors import CompileError as CompileError
    from .errors import Frame as Frame
    from .errors import FuelExhausted as FuelExhausted
    from .errors import GuestExit as GuestExit
    from .errors import InstantiationError as InstantiationError
    from .errors import MemoryAccessError as MemoryAccessError
    from .errors import PoolFull as PoolFull
    from .errors import PoolTimeout as PoolTimeout
    from .errors import Quarantined as Quarantined
    from .errors import RssExceeded as RssExceeded
    from .errors import Trap as Trap
    from .errors import TrapCode as TrapCode
    from .errors import WallClockExceeded as WallClockExceeded
    from .errors import WasmError as WasmError
    from .errors import WorkerCrashed as WorkerCrashed
    from .events import Event as Event
    from .externs import ExportType as ExportType
    from .externs import FuncType as FuncType
    from .externs import GlobalType as GlobalType
    from .externs import ImportType as ImportType
    from .externs import MemoryType as MemoryType
    from .externs import TableType as TableType
    from .externs import TagType as TagType
    from .hardening import Hardening as Hardening
    from .hardening import HardeningReport as HardeningReport
    from .hardening import Layer as Layer
    from .hardening import LayerReport as LayerReport
    from .hardening import State as State
    from .imports import Caller as Caller
    from .imports import HostFunction as HostFunction
    from .imports import WasmImports as WasmImports
    from .imports import in_worker as in_worker
    from .interfaces import Capability as Capability
    from .interfaces import WasmHost as WasmHost
    from .interfaces import WasmInstance as WasmInstance
    from .interfaces import WasmModule as WasmModule
    from .limits import EngineConfig as EngineConfig
    from .limits import Limits as Limits
    from .plugin import Plugin as Plugin
    from .pool import Pool as Pool
    from .receipt import Receipt as Receipt
    from .restarts import RestartPolicy as RestartPolicy
    from .restarts import Standing as Standing
    from .runtime.host import WasmtimeHost as WasmtimeHost
    from .stats import HostStats as HostStats
    from .supervisor.host import Supervisor as Supervisor
    from .values import F32 as F32
    from .values import F64 as F64
    from .values import I32 as I32
    from .values import I64 as I64
    from .values import WasmVal as WasmVal
    from .wasi import Clock as Clock
    from .wasi import Dir as Dir
    from .wasi import Output as Output
    from .wasi import RunResult as RunResult
    from .wasi import Wasi as Wasi

_ROOMS = {
    "actor": "WasmActor",
    "accounting": "receipts",
    "aio.host": "AsyncSupervisor",
    "aio.instance": "AsyncInstance",
    "aio.plugin": "AsyncPlugin",
    "aio.pool": "AsyncPool",
    "errors": (
        "CallError Cause CompileError Frame FuelExhausted GuestExit InstantiationError MemoryAccessError PoolFull "
        "PoolTimeout Quarantined RssExceeded Trap TrapCode WallClockExceeded WasmError WorkerCrashed"
    ),
    "events": "Event",
    "externs": "ExportType FuncType GlobalType ImportType MemoryType TableType TagType",
    "hardening": "Hardening HardeningReport Layer LayerReport State",
    "imports": "Caller HostFunction WasmImports in_worker",
    "interfaces": "Capability WasmHost WasmInstance WasmModule",
    "limits": "EngineConfig Limits",
    "plugin": "Plugin",
    "pool": "Pool",
    "restarts": "RestartPolicy Standing",
    "receipt": "Receipt",
    "runtime.host": "WasmtimeHost",
    "stats": "HostStats",
    "supervisor.host": "Supervisor",
    "values": "F32 F64 I32 I64 WasmVal",
    "wasi": "Clock Dir Output RunResult Wasi",
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = sorted(_HOME)  # noqa: PLE0605 - one table instead of two lists that drift apart


def __getattr__(name: str) -> object:
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
