"""What `inspect` finds out: a module's imports, exports and memories, and what it would need to run. Pure.

Works on the types that the host reports; the module is compiled, never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..externs import FuncType, GlobalType, MemoryType, TableType, TagType
from ..imports import WasmImports
from ..missing import PREVIEW1
from . import hosts
from .output import printable
from .units import size

if TYPE_CHECKING:
    from ..externs import ExportType, ExternType, ImportType
    from ..interfaces import WasmModule
    from ..limits import Limits

__all__ = ["Survey", "survey"]

_LISTED: Final = 4


@dataclass(frozen=True, slots=True)
class Survey:
    """The facts about one module."""

    file: str
    format: str
    size: int
    sha256: str
    imports: list[tuple[ImportType, str]]  #: each with what answers it: "pd", "functions", "wasi" or "nothing"
    exports: list[ExportType]
    memories: list[tuple[str, MemoryType]]  #: imported and exported ones, with where they were seen
    needs: list[str]  #: what it takes to run it; empty: `pdsandbox run` does

    def document(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "ok": True,
            "file": self.file,
            "format": self.format,
            "size": self.size,
            "sha256": self.sha256,
            "imports": [
                {"module": i.module, "name": i.name, **_plain(i.type), "satisfied_by": by} for i, by in self.imports
            ],
            "exports": [{"name": e.name, **_plain(e.type)} for e in self.exports],
            "memories": [{"where": where, **_plain(memory)} for where, memory in self.memories],
            "needs": self.needs,
        }


def survey(file: str, code: bytes | str, bytes_read: int, module: WasmModule, limits: Limits) -> Survey:
    """Everything worth knowing about `module` before running it under `limits`."""
    exports = module.export_types()
    imports = [(item, satisfied_by(item)) for item in module.imports()]
    memories = [
        (f"import {printable(i.module)}.{printable(i.name)}", i.type)
        for i, _ in imports
        if isinstance(i.type, MemoryType)
    ]
    memories += [(f"export {printable(e.name)}", e.type) for e in exports if isinstance(e.type, MemoryType)]
    kind = "text" if isinstance(code, str) else "binary"
    needs = _needs(imports, exports, memories, limits)
    return Survey(file, kind, bytes_read, module.sha256, imports, exports, memories, needs)


def satisfied_by(wanted: ImportType) -> str:
    """What can answer an import: "pd" (built in), "wasi", "functions" (yours) or "nothing"."""
    if not isinstance(wanted.type, FuncType):
        return "nothing"
    offer = WasmImports().offer(wanted.module, wanted.name)
    if offer is not None and offer.type == wanted.type:
        return "pd"
    if wanted.type.unsupported:
        return "nothing"
    if hosts.is_preview1(wanted):
        return "wasi"
    # Another version of WASI: nobody writes all that by hand.
    return "nothing" if hosts.is_wasi(wanted) else "functions"


def _needs(
    imports: list[tuple[ImportType, str]],
    exports: list[ExportType],
    memories: list[tuple[str, MemoryType]],
    limits: Limits,
) -> list[str]:
    needs = []
    count = {by: sum(1 for _, answer in imports if answer == by) for by in ("functions", "nothing")}
    other = sorted(
        {printable(item.module, 60) for item, _ in imports if hosts.is_wasi(item) and not hosts.is_preview1(item)}
    )
    if other:
        needs.append(f"WASI in another version: {', '.join(other[:_LISTED])}; build it for {PREVIEW1} (wasm32-wasip1)")
    if count["functions"]:
        needs.append(f"{_many(count['functions'], 'host function')} of yours: WasmImports(functions=...) from Python")
    if count["nothing"]:
        needs.append(f"{_many(count['nothing'], 'import')} that cannot be given: only functions over numbers can")
    if limits.memory_bytes is not None:
        for where, memory in memories:
            at_least = memory.minimum * memory.page_bytes
            if at_least > limits.memory_bytes:
                needs.append(f"--memory {size(at_least).replace(' ', '').replace(',', '')} or more ({where})")
    if not any(isinstance(e.type, FuncType) for e in exports):
        needs.append("an exported function to call: it has none")
    return needs


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def kind_of(type_: ExternType) -> str:
    """ "function", "memory", "table", "global" or "tag"."""
    names = {FuncType: "function", MemoryType: "memory", TableType: "table", GlobalType: "global", TagType: "tag"}
    return names[type(type_)]


def describe(type_: ExternType) -> str:
    """A type for people, its kind included."""
    if isinstance(type_, FuncType):
        return f"func {type_}"
    if isinstance(type_, MemoryType):
        least = size(type_.minimum * type_.page_bytes)
        most = "no maximum" if type_.maximum is None else f"at most {size(type_.maximum * type_.page_bytes)}"
        return f"{type_} ({least}, {most})"
    return str(type_)


def _plain(type_: ExternType) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": kind_of(type_), "type": str(type_)}
    if isinstance(type_, FuncType):
        facts |= {"params": list(type_.params), "results": list(type_.results), "callable": not type_.unsupported}
    elif isinstance(type_, MemoryType):
        most = None if type_.maximum is None else type_.maximum * type_.page_bytes
        facts |= {"minimum_pages": type_.minimum, "maximum_pages": type_.maximum}
        facts |= {"minimum_bytes": type_.minimum * type_.page_bytes, "maximum_bytes": most, "is_64": type_.is_64}
    return facts
