"""`pdsandbox inspect`: what a module imports and exports, and what it would need, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ..errors import WasmError
from ..externs import FuncType
from ..limits import Limits
from .output import Failure, emit, note

if TYPE_CHECKING:
    from .survey import Survey

__all__ = ["command"]

# A terminal's worth; --json has them all.
_ROWS: Final = 200

_ANSWERS: Final = {
    "pd": ("built in", "green"),
    "functions": ("functions=", "yellow"),
    "wasi": ("WASI", "green"),
    "nothing": ("nothing", "red"),
}

_EPILOG: Final = """\b
What can answer an import:
  built in       pd_send, pd_now_micros, pd_log, under env or pd: stubs
                 unless you give your own
  functions=     a host function that you write, from Python:
                 WasmImports(functions={("env", "f"): HostFunction(f)})
  WASI           `pdsandbox run`, or instantiate(..., wasi=Wasi(...))
  nothing        memories, tables, globals and tags, and other versions of
                 WASI, cannot be given

\b
Examples:
  pdsandbox inspect plugin.wasm
  pdsandbox inspect plugin.wat --json
  curl -s https://example.org/plugin.wasm | pdsandbox inspect -
"""


@click.command("inspect", epilog=_EPILOG, short_help="Show what a module imports, exports and needs.")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(file: str, as_json: bool) -> int:
    """Show what the WebAssembly module in FILE imports and exports, and what it would need to run.

    FILE is a .wasm (binary) or .wat (text) module; - reads standard input. The module is compiled in a process
    of its own, with limits, and not run.
    """
    from . import hosts, report
    from .source import read_source
    from .survey import survey

    if not as_json:
        from . import terminal  # noqa: F401 - without rich, say so before the work, not after it

    try:
        limits = Limits()
        source = read_source(file, limits.module_bytes)
        with hosts.open_host(limits) as host:
            found = survey(file, source.code, source.size, host.compile(source.code), limits)
    except (WasmError, Failure) as exc:
        if as_json:
            emit(report.as_json({"ok": False, "file": file, "error": report.error_json(exc)}))
        else:
            for line in report.error_lines(exc, file):
                note(line)
        return report.exit_code(exc)
    if as_json:
        emit(report.as_json(found.document()))
    else:
        emit(_render(found, source.shown))
    return 0


def _render(found: Survey, shown: str) -> str:
    from rich.table import Table
    from rich.text import Text

    from . import report
    from .output import printable
    from .survey import describe
    from .terminal import console, rendered
    from .units import size

    out = console()
    about = f"{size(found.size)}, " if found.size >= 1024 else ""
    parts: list[Table | Text] = [
        Text.assemble((shown, "bold"), f"  {found.format} format, {about}{found.size:,} bytes"),
        Text(f"sha256 {found.sha256}"),
    ]
    imports = Table("module", "name", "type", "answered by", title=_title("imports", len(found.imports)))
    for item, by in found.imports[:_ROWS]:
        answer, colour = _ANSWERS[by]
        cells = (printable(item.module), printable(item.name), describe(item.type))
        imports.add_row(*map(Text, cells), Text(answer, colour))
    exports = Table("name", "type", title=_title("exports", len(found.exports)))
    for export in found.exports[:_ROWS]:
        exports.add_row(Text(printable(export.name)), Text(describe(export.type)))
    for table, count in ((imports, len(found.imports)), (exports, len(found.exports))):
        table.title_justify = "left"
        if count:
            parts.append(table)
        else:
            parts.append(Text(f"no {'imports' if table is imports else 'exports'}"))
        if count > _ROWS:
            parts.append(Text(f"... and {count - _ROWS:,} more: --json shows all", "dim"))
    if found.needs:
        parts.append(Text("To run, it needs:", "bold"))
        parts += [Text(f"  {need}") for need in found.needs]
    else:
        functions = [export.name for export in found.exports if isinstance(export.type, FuncType)]
        rest = "" if "_start" in functions or len(functions) == 1 else " EXPORT"
        wasi = any(by == "wasi" for _, by in found.imports)
        needs = ("Needs nothing but WASI: " if wasi else "Needs nothing: ", "bold green")
        parts.append(Text.assemble(needs, f"pdsandbox run {report.argument(found.file)}{rest}"))
    return rendered(out, *parts)


def _title(what: str, count: int) -> str:
    return f"{count:,} {what if count != 1 else what[:-1]}"
