"""Types of imports and exports, as plain data. Read from a compiled module by a compiler process, never parsed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ExportType", "FuncType", "GlobalType", "ImportType", "MemoryType", "TableType", "TagType"]

#: The value types that cross the boundary between host and guest.
NUMBER_TYPES: Final = ("i32", "i64", "f32", "f64")


@dataclass(frozen=True, slots=True)
class FuncType:
    """A function's parameter and result types: "i32", "i64", "f32", "f64", "v128", "funcref", "externref" or "ref".

    "ref" stands for every other reference type.
    """

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"

    @property
    def unsupported(self) -> str | None:
        """The first type that cannot cross the boundary, or None."""
        for name in self.params + self.results:
            if name not in NUMBER_TYPES:
                return name
        return None


@dataclass(frozen=True, slots=True)
class MemoryType:
    """A linear memory: minimum and maximum in pages (64 KiB each unless `page_bytes` says otherwise)."""

    minimum: int
    maximum: int | None = None
    is_64: bool = False
    shared: bool = False
    page_bytes: int = 65536

    def __str__(self) -> str:
        most = "" if self.maximum is None else f" to {self.maximum}"
        flags = (", 64-bit" if self.is_64 else "") + (", shared" if self.shared else "")
        return f"memory of {self.minimum}{most} page{'' if (self.minimum, most) == (1, '') else 's'}{flags}"


@dataclass(frozen=True, slots=True)
class TableType:
    """A table: element type, minimum and maximum number of elements."""

    element: str
    minimum: int
    maximum: int | None = None

    def __str__(self) -> str:
        most = "" if self.maximum is None else f" to {self.maximum}"
        return f"table of {self.minimum}{most} {self.element}"


@dataclass(frozen=True, slots=True)
class GlobalType:
    """A global variable."""

    content: str
    mutable: bool

    def __str__(self) -> str:
        return f"global {'var' if self.mutable else 'const'} {self.content}"


@dataclass(frozen=True, slots=True)
class TagType:
    """An exception tag."""

    params: tuple[str, ...]

    def __str__(self) -> str:
        return f"tag ({', '.join(self.params)})"


ExternType = FuncType | MemoryType | TableType | GlobalType | TagType


@dataclass(frozen=True, slots=True)
class ImportType:
    """One import. `module` and `name` were chosen by whoever made the module."""

    module: str
    name: str
    type: ExternType


@dataclass(frozen=True, slots=True)
class ExportType:
    """One export."""

    name: str
    type: ExternType
