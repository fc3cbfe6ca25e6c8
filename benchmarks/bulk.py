"""Guest memory in bulk: `memory_read` and `memory_write`, where process_vm copies are allowed, and where they are not.

Two groups. In `bulk` the library copies as it likes, and stands beside a single process_vm copy. In `bulkpipe` its
calls are made in a thread for which the kernel refuses process_vm_*, as in many containers, so the bytes must go
through the pipe; they stand beside the same bytes through a bare pipe.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pdsandbox import Supervisor

from .copying import Holder, ProcessVM, refuse_process_vm
from .measure import Bar, Contender, Group, Row, Series, Unmeasurable, block

# A block takes from 0.2 to 10 ms.
_SIZES = {"1 KiB": (1 << 10, 50), "64 KiB": (1 << 16, 20), "1 MiB": (1 << 20, 5)}
_LEAD_IN = 3
_LARGEST = 1 << 20
_ROOM = f"""(module (memory (export "memory") {_LARGEST >> 16}))"""
_CONTENT = bytes(range(256)) * (_LARGEST // 256)


def _series(group: str, way: str, baseline: Mapping[str, str]) -> tuple[Series, ...]:
    made = []
    for name in _SIZES:
        for verb in ("read", "write"):
            key = _key(group, verb, name)
            made.append(Series(key, f"Supervisor: instance.memory_{verb}, {name}{way}"))
            made.append(Series(f"{key}.bare", f"{baseline[verb]}, {name}", short=baseline[verb]))
    return tuple(made)


def _rows(group: str, baseline: str, bar: Bar, way: str) -> tuple[Row, ...]:
    """The bars are those for 1 MiB; what one call costs shows in the smaller ones."""
    return tuple(
        Row(
            f"{group}_{verb}_{name.replace(' ', '')}.{baseline}",
            f"memory_{verb}, {name}{way}",
            _key(group, verb, name),
            f"{_key(group, verb, name)}.bare",
            bar=bar if size == _LARGEST else None,
        )
        for name, (size, _) in _SIZES.items()
        for verb in ("read", "write")
    )


def _key(group: str, verb: str, name: str) -> str:
    return f"{group}.{verb}.{name.replace(' ', '')}"


SERIES = _series("bulk", "", {"read": "process_vm_readv into new bytes", "write": "process_vm_writev from bytes"})
ROWS = _rows("bulk", "process_vm", Bar(1.5, "issue 4"), "")
PIPE_SERIES = _series(
    "bulkpipe", ", process_vm refused", {"read": "bare pipe, into a new buffer", "write": "bare pipe, from bytes"}
)
PIPE_ROWS = _rows("bulkpipe", "pipe", Bar(2.0, "issue 4"), ", no process_vm")

_Read = Callable[[int], bytes | bytearray]
_Write = Callable[[bytes], None]


def _contenders(group: str, ours: tuple[_Read, _Write], bare: tuple[_Read, _Write]) -> Iterator[Contender]:
    for name, (size, calls) in _SIZES.items():
        data = _CONTENT[:size]
        for suffix, (read, write) in (("", ours), (".bare", bare)):
            write(bytes(size))
            zeroed = read(size)
            write(data)
            if zeroed != bytes(size) or read(size) != data:
                raise RuntimeError(f"{group}: {name} written are not the {name} read")
            for verb, call in (("read", functools.partial(read, size)), ("write", functools.partial(write, data))):
                yield block(_key(group, verb, name) + suffix, call, calls=calls, lead_in=_LEAD_IN)


@contextlib.contextmanager
def _open() -> Iterator[Sequence[Contender]]:
    with Supervisor() as host, host.instantiate(host.compile(_ROOM)) as instance, Holder(_LARGEST) as holder:
        bare = ProcessVM(holder.pid, holder.address)
        try:
            bare.read(1)
        except OSError as exc:
            raise Unmeasurable(f"process_vm_readv of a child process: {exc.strerror}") from exc
        ours = (functools.partial(instance.memory_read, 0), functools.partial(instance.memory_write, 0))
        yield tuple(_contenders("bulk", ours, (bare.read, bare.write)))


@contextlib.contextmanager
def _open_pipe() -> Iterator[Sequence[Contender]]:
    with (
        ThreadPoolExecutor(1) as thread,
        Supervisor() as host,
        Holder(_LARGEST) as holder,
    ):
        module = host.compile(_ROOM)  # this also starts the fork server, so workers inherit nothing of the filter
        thread.submit(refuse_process_vm).result()
        with thread.submit(host.instantiate, module).result() as instance:
            refused = ProcessVM(holder.pid, holder.address)
            error = thread.submit(refused.read, 1).exception()
            if not isinstance(error, PermissionError):
                raise RuntimeError(f"process_vm_readv was to be refused: {error!r}")
            ours = (functools.partial(instance.memory_read, 0), functools.partial(instance.memory_write, 0))
            bare = (holder.piped_read, holder.piped_write)
            contenders = thread.submit(lambda: tuple(_contenders("bulkpipe", ours, bare))).result()
            # Each block runs in that thread from its first call to its last.
            yield tuple(functools.partial(_in, thread, contender) for contender in contenders)


def _in(thread: ThreadPoolExecutor, contender: Contender) -> Mapping[str, float]:
    return thread.submit(contender).result()


GROUP = Group(
    "bulk",
    "guest memory",
    SERIES,
    ROWS,
    _open,
    rounds=200,
    quick_rounds=20,
    caption="Reading and writing a guest's memory, where the kernel copies between processes.",
)
PIPE_GROUP = Group(
    "bulkpipe",
    "guest memory, no process_vm",
    PIPE_SERIES,
    PIPE_ROWS,
    _open_pipe,
    rounds=200,
    quick_rounds=20,
    caption="The same through the pipe, where the kernel refuses to.",
)
