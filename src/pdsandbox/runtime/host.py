"""`WasmtimeHost`: the interface in this very process, for trusted code and for tests. No isolation, no clock.

What it cannot do it lists in `missing`, and it refuses a limit it cannot keep. It knows nothing of workers; what
both hosts share lies in `calls` and `callbacks`.
"""

from __future__ import annotations

import hashlib
import threading
import weakref

from ..calls import check_name, no_export, not_a_function
from ..errors import Cause, CompileError, InstantiationError
from ..externs import ExportType, FuncType, ImportType
from ..imports import WasmImports
from ..interfaces import Capability, WasmHost, WasmModule
from ..limits import EngineConfig, Limits, config_of
from ..source import source_of
from ..wasi import Wasi
from .engine import Engine, Module
from .instance import LocalInstance

__all__ = ["WasmtimeHost"]

# Limits that only a process of its own can keep.
_CANNOT = ("wall_s", "rss_bytes", "compile_wall_s", "compile_rss_bytes")


class LocalModule(WasmModule):
    """A module compiled by a `WasmtimeHost`."""

    def __init__(self, host: WasmtimeHost, module: Module, sha256: str) -> None:
        self.host = host
        self.module = module
        self._sha256 = sha256
        self._functions: dict[str, FuncType | None] | None = None

    def exports(self) -> list[str]:
        """Names of all exports, in declaration order."""
        return [item.name for item in self.module.exports()]

    def export_types(self) -> list[ExportType]:
        """All exports with their types, in declaration order."""
        return list(self.module.exports())

    def imports(self) -> list[ImportType]:
        """All imports, in declaration order."""
        return list(self.module.imports())

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the source as given."""
        return self._sha256

    def signature(self, name: str) -> FuncType:
        """The type of the exported function `name`; CallError when there is none."""
        check_name(name)
        if self._functions is None:
            self._functions = {
                item.name: item.type if isinstance(item.type, FuncType) else None for item in self.module.exports()
            }
        if name not in self._functions:
            raise no_export(name)
        found = self._functions[name]
        if found is None:
            raise not_a_function(name)
        return found

    def __repr__(self) -> str:
        return f"<module {self._sha256[:12]}>"


class WasmtimeHost(WasmHost):
    """Compiles and runs guests in this process: a guest that breaks out of wasmtime owns it, and nothing stops one that
    does not return, but fuel. Raises ValueError for an explicit limit that needs a process of its own."""

    missing = frozenset(
        {
            Capability.ISOLATION,
            Capability.WALL_CLOCK,
            Capability.RSS,
            Capability.KILL,
            Capability.COMPILE_LIMITS,
        }
    )

    def __init__(self, limits: Limits | None = None, engine: EngineConfig | None = None) -> None:
        self.limits = config_of("limits", limits, Limits)
        self.engine_config = config_of("engine", engine, EngineConfig)
        explicit = self.limits.explicit()
        refused = [name for name in _CANNOT if explicit.get(name) is not None]
        if refused:
            raise ValueError(
                f"WasmtimeHost runs in this process and cannot keep {', '.join(refused)}: leave out or set to None, "
                "or use Supervisor"
            )
        self._engine = Engine(
            fuel=self.engine_config.fuel,
            interruptible=self.engine_config.interruptible,
            stack_bytes=self.limits.stack_bytes,
        )
        self._instances: weakref.WeakSet[LocalInstance] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def compile(self, wasm: bytes | str) -> LocalModule:
        """Compile a module: bytes are the binary format, a str is the text format. Raises CompileError,
        and TypeError for anything else: a path is never opened."""
        source, text = source_of(wasm, self.limits.module_bytes)
        if self._is_closed():
            raise CompileError("the host is closed", cause=Cause.CLOSED)
        module = self._engine.compile(source, text=text)
        return LocalModule(self, module, hashlib.sha256(source).hexdigest())

    def instantiate(
        self, module: WasmModule, imports: WasmImports | None = None, *, wasi: Wasi | None = None
    ) -> LocalInstance:
        """A new instance. Raises InstantiationError; FuelExhausted and GuestExit from the start function."""
        if not isinstance(module, LocalModule) or module.host is not self:
            raise InstantiationError("the module was compiled by another host", cause=Cause.USAGE)
        if wasi is not None and not isinstance(wasi, Wasi):
            raise InstantiationError(f"wasi must be a Wasi, not {type(wasi).__name__}", cause=Cause.USAGE)
        if self._is_closed():
            raise InstantiationError("the host is closed", cause=Cause.CLOSED)
        instance = LocalInstance(self._engine, module.module, _offers(imports), self.limits, wasi)
        with self._lock:
            closed = self._is_closed()
            if not closed:
                self._instances.add(instance)
        if closed:  # by another thread, meanwhile
            instance.close()
            raise InstantiationError("the host is closed", cause=Cause.CLOSED)
        return instance

    def _is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close every instance (one that is in a call, when that returns). Twice is allowed."""
        with self._lock:
            self._closed = True
            instances = list(self._instances)
        for instance in instances:
            instance.close()


def _offers(imports: object) -> WasmImports:
    if imports is None:
        return WasmImports()
    if isinstance(imports, WasmImports):
        return imports
    text = f"imports must be WasmImports, not {type(imports).__name__}"
    raise InstantiationError(text, cause=Cause.USAGE)
