"""A worker with granted directories on kernels with an older Landlock, as far as this one can play them: prints by ABI
what came of what it tried. Must run in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdsandbox.hardening import Hardening, Layer
from pdsandbox.platform import files
from pdsandbox.platform.lockdown import landlock
from pdsandbox.protocol.control import Role
from pdsandbox.runtime.wasi import beneath
from pdsandbox.worker.lockdown import Lockdown

_CREATE = os.O_CREAT | os.O_RDWR


def outcome(act: Callable[[], Any]) -> str:
    try:
        act()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "ok"


def attempts(ro: int, rw: int) -> dict[str, str]:
    """In the worker."""
    open_at = beneath.opener(rw)

    def opening(fd: int, name: str, flags: int, mode: int = 0o600) -> Callable[[], Any]:
        return lambda: os.close(os.open(name, flags, mode, dir_fd=fd))

    return {
        "opener": type(open_at).__name__,
        "openat2": outcome(lambda: os.close(files.open_beneath(ro, b"file", os.O_RDONLY))),
        "read": outcome(opening(ro, "file", os.O_RDONLY)),
        "guest's read": outcome(lambda: os.close(open_at(ro, b"d/../file", os.O_RDONLY))),
        "write, ro": outcome(opening(ro, "file", os.O_WRONLY)),
        "truncate while reading, ro": outcome(opening(ro, "file", os.O_RDONLY | os.O_TRUNC)),
        "truncate while reading, rw": outcome(opening(rw, "file", os.O_RDONLY | os.O_TRUNC)),
        "truncate, ro": outcome(opening(ro, "file", os.O_WRONLY | os.O_TRUNC)),
        "truncate, rw": outcome(opening(rw, "file", os.O_WRONLY | os.O_TRUNC)),
        "access mode 3, ro": outcome(opening(ro, "file", 3)),
        "create, ro": outcome(opening(ro, "new", _CREATE)),
        "create, rw": outcome(opening(rw, "new", _CREATE)),
        "create set-user-id, rw": outcome(opening(rw, "suid", _CREATE, 0o4755)),
        "create without a name, rw": outcome(opening(rw, ".", os.O_TMPFILE | os.O_RDWR)),
        "guest's create": outcome(lambda: os.close(open_at(rw, b"d/new", _CREATE, 0o666))),
        "rename": outcome(lambda: os.rename("new", "newer", src_dir_fd=rw, dst_dir_fd=rw)),
        "rename to another directory": outcome(lambda: os.rename("newer", "d/newer", src_dir_fd=rw, dst_dir_fd=rw)),
        "outside": outcome(opening(rw, "..", os.O_RDONLY)),
        "outside by a path": outcome(opening(rw, "/etc/passwd", os.O_RDONLY)),
    }


def in_worker(made: Lockdown, top: str) -> dict[str, str]:
    """What a fork says that locks itself down around two directories."""
    for name in ("ro", "rw"):
        Path(top, name, "d").mkdir(parents=True)
        Path(top, name, "file").write_text("text")
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ro, rw = (os.open(f"{top}/{name}", os.O_RDONLY | os.O_DIRECTORY) for name in ("ro", "rw"))
            made.grant([(ro, False), (rw, True)])
            made.enter(Role.WORKER)
            made.lock()
            os.write(w, json.dumps(attempts(ro, rw)).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    os.close(w)
    with open(r, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(said) | {"ro, then": Path(top, "ro", "file").read_text()}


def main(abi: int) -> None:
    real = landlock.abi()
    landlock.abi = lambda: min(abi, real)
    made = Lockdown(frozenset(filter(Hardening().wants, Layer)), {Role.WORKER: None, Role.COMPILER: None})
    made.prepare()
    with tempfile.TemporaryDirectory() as top:
        print(json.dumps(in_worker(made, top)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
