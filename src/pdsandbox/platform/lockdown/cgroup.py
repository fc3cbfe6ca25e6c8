"""Memory control groups: a leaf for each worker under a directory that was delegated to the service.

Both versions of cgroups; a directory belongs to one of them, and is a memory controller's or is refused. The fork
server makes and removes leaves, a child puts itself in before it has used anything, the supervisor reads what happened.
Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

_PREFIX: Final = "pdsandbox-"
_V2_LIMIT: Final = "memory.max"
_V1_LIMIT: Final = "memory.limit_in_bytes"
#: (file, value): swap would let a worker's memory grow past its limit, and what is killed is the whole worker. Not all
#: kernels have them.
_V2_MORE: Final = (("memory.swap.max", b"0"), ("memory.oom.group", b"1"))
_EVENTS: Final = ("memory.events", "memory.oom_control")
_PEAKS: Final = ("memory.peak", "memory.max_usage_in_bytes")


def check(base: str) -> None:
    """OSError, saying what to do, unless leaves with a memory limit can be made in `base`."""
    if not os.path.isfile(f"{base}/cgroup.procs"):
        raise OSError(errno.EINVAL, f"{base} is not a cgroup directory")
    if os.path.exists(f"{base}/{_V1_LIMIT}"):
        return
    control = f"{base}/cgroup.subtree_control"
    if not os.path.exists(control):
        raise OSError(errno.EINVAL, f"{base} is not a cgroup with a memory controller")
    if "memory" not in _read(control).split():
        try:
            _write(control, b"+memory")
        except OSError as exc:
            what = (
                f"the memory controller is not delegated to {base}: systemd does with Delegate=memory ({exc.strerror})"
            )
            raise OSError(exc.errno, what) from exc


def leaf(base: str, owner: int, ticket: int) -> str:
    """The path of one child's leaf; `owner` is the fork server's pid."""
    return f"{base}/{_PREFIX}{owner}-{ticket}"


class Leaves:
    """Those of one fork server. One that cannot be removed at once is tried again with the next."""

    def __init__(self, base: str, owner: int) -> None:
        check(base)
        self._base = base
        self._owner = owner
        self._made: set[str] = set()
        self._left: set[str] = set()
        self._sweep()

    def make(self, ticket: int, limit: int | None) -> None:
        """Before the fork. OSError when it cannot be made."""
        path = leaf(self._base, self._owner, ticket)
        _make(path, limit)
        self._made.add(path)

    def enter(self, ticket: int) -> None:
        """Put the calling process in."""
        _write(f"{leaf(self._base, self._owner, ticket)}/cgroup.procs", b"0")

    def remove(self, ticket: int) -> None:
        """Once its member was reaped, or never was; one that was not made is none."""
        path = leaf(self._base, self._owner, ticket)
        if path in self._made:
            self._made.discard(path)
            self._left.add(path)
        self._try_to_remove()

    def remove_all(self) -> None:
        """Once all were reaped."""
        self._left |= self._made
        self._made = set()
        self._try_to_remove()

    def _try_to_remove(self) -> None:
        for path in list(self._left):
            try:
                os.rmdir(path)
            except OSError as exc:
                if exc.errno == errno.EBUSY:
                    continue
            self._left.discard(path)

    def _sweep(self) -> None:
        """Remove what fork servers left that were killed themselves."""
        for name in os.listdir(self._base):
            owner = name.removeprefix(_PREFIX).split("-")[0]
            if name.startswith(_PREFIX) and owner.isdigit() and not _alive(owner):
                self._left.add(f"{self._base}/{name}")
        self._try_to_remove()


def _alive(pid: str) -> bool:
    """Whether there is such a process, and not just its zombie."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _make(path: str, limit: int | None) -> None:
    """A leaf at `path` whose members may use `limit` bytes together."""
    os.mkdir(path, 0o755)
    try:
        v2 = os.path.exists(f"{path}/{_V2_LIMIT}")
        if limit is not None:
            _write(f"{path}/{_V2_LIMIT if v2 else _V1_LIMIT}", b"%d" % limit)
        if v2:
            for name, value in _V2_MORE:
                with contextlib.suppress(FileNotFoundError):
                    _write(f"{path}/{name}", value)
    except BaseException:
        os.rmdir(path)
        raise


def out_of_memory(path: str) -> int | None:
    """The most bytes that its members have used, if the kernel ended one of them for the leaf's limit; else None."""
    for name in _EVENTS:
        with contextlib.suppress(FileNotFoundError):
            counts = dict(line.split()[:2] for line in _read(f"{path}/{name}").splitlines())
            if not int(counts.get("oom_kill", 0)):
                return None
            return _peak(path)
    return None


def _peak(path: str) -> int:
    for name in _PEAKS:  # the first since Linux 5.19
        with contextlib.suppress(FileNotFoundError):
            return int(_read(f"{path}/{name}"))
    return 0


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(4096).decode()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)
