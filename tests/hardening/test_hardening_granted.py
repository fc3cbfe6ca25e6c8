"""Workers whose guests were granted directories: whose they are, what they are limited to, and that the report on them
is true. Seen from outside, and by functions that run in them as native code."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fork_server import wrapper

from pdsandbox import (
    Cause,
    Dir,
    Hardening,
    HostFunction,
    InstantiationError,
    Layer,
    State,
    Supervisor,
    Wasi,
    WasmImports,
    in_worker,
)
from pdsandbox.platform import files
from pdsandbox.platform.lockdown.privileges import NOBODY
from pdsandbox.runtime.wasi import table
from pdsandbox.worker import granted

Make = Callable[..., Supervisor]
GUEST = """(module (import "env" "act" (func $act (result i32)))
  (func (export "act") (result i32) (call $act)))"""
UID, OTHER = 12345, 12346
SIGXFSZ_BIT = 1 << 24
LANDLOCK = {Layer.LANDLOCK_FILES, Layer.LANDLOCK_TCP, Layer.LANDLOCK_SCOPE}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's workers change their user")


@pytest.fixture(scope="module")
def complete() -> None:
    """Skips where a layer is missing: then workers with directories are nobody."""
    with Supervisor(spares=0) as host:
        if not host.hardening_report().complete:
            pytest.skip("this machine lacks a layer")


def directory(path: Path, owner: tuple[int, int] = (0, 0), mode: int = 0o700) -> Path:
    path.mkdir()
    (path / "file").write_text("text")
    if os.geteuid() == 0:
        for each in (path / "file", path):
            os.chown(each, *owner)
    path.chmod(mode)
    return path


def start(host: Supervisor, *dirs: Dir, act: Callable[[Any], int] = lambda _caller: 0) -> Any:
    imports = WasmImports(functions={("env", "act"): HostFunction(in_worker(act), (), ("i32",))})
    return host.instantiate(host.compile(GUEST), imports, wasi=Wasi(dirs=dirs))


def status(pid: int) -> dict[str, str]:
    """What the kernel says about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def limits(pid: int) -> dict[str, list[str]]:
    """Soft and hard, by name."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


def ids(pid: int) -> tuple[int, int]:
    found = status(pid)
    uid, gid = found["Uid"].split(), found["Gid"].split()
    assert len(set(uid)) == len(set(gid)) == 1
    assert found["Groups"] == ""
    return int(uid[0]), int(gid[0])


# --- whose ---


@needs_root
@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("dirs", "expected"),
    [
        # (owner and group, mode of the directory, mode of the grant)
        ([((0, 0), 0o700, "ro")], (0, NOBODY)),
        ([((0, 0), 0o700, "rw")], (0, 0)),
        ([((UID, UID), 0o700, "ro")], (UID, NOBODY)),
        ([((UID, OTHER), 0o700, "rw")], (UID, OTHER)),
        ([((UID, UID), 0o700, "rw"), ((0, 0), 0o755, "ro")], (UID, UID)),
        ([((UID, UID), 0o777, "rw"), ((OTHER, UID), 0o777, "rw")], (NOBODY, UID)),
        ([((UID, OTHER), 0o755, "ro"), ((0, 0), 0o755, "ro")], (NOBODY, NOBODY)),
        ([((UID, OTHER), 0o750, "ro"), ((0, OTHER), 0o750, "ro")], (NOBODY, OTHER)),
        ([((UID, UID), 0o750, "ro"), ((UID, OTHER), 0o750, "ro")], (UID, NOBODY)),
    ],
    ids=str,
)
def test_whose_a_worker_is(make_supervisor: Make, tmp_path: Path, dirs: Any, expected: tuple[int, int]) -> None:
    """The owner of the directories, those to write first; their group where something is made or only it may enter;
    nobody's where they are several. No other group, no capability, also as root; and the directories can be used."""
    grants = [
        Dir(directory(tmp_path / str(n), owner, mode), f"/{n}", grant) for n, (owner, mode, grant) in enumerate(dirs)
    ]
    host = make_supervisor("default")
    with start(host, *grants) as instance:
        found = status(instance.pid)
        assert ids(instance.pid) == expected
        assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert instance.func("act")() == 0


@needs_root
@pytest.mark.usefixtures("complete")
def test_a_directory_that_the_worker_cannot_use(make_supervisor: Make, tmp_path: Path) -> None:
    """Two owners, and none of theirs may be nobody's: HOST, and which directory, whose it is, and who the worker is."""
    first = directory(tmp_path / "1", (UID, UID), 0o777)
    second = directory(tmp_path / "2", (OTHER, OTHER), 0o755)
    host = make_supervisor("default")
    with pytest.raises(InstantiationError) as caught:
        start(host, Dir(first, "/1", "rw"), Dir(second, "/2", "rw"))
    assert caught.value.cause is Cause.HOST
    assert "granted directory 2 of 2 belongs to user 12346, group 12346 (mode 0755)" in caught.value.message
    assert f"cannot be written by the worker, which is user {NOBODY}, group {NOBODY}" in caught.value.message
    with start(host, Dir(first, "/1", "rw"), Dir(second, "/2")) as instance:
        assert ids(instance.pid) == (UID, UID)


@needs_root
@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("off", ["landlock", "seccomp", "capabilities"])
def test_never_root_without_what_holds_it(make_supervisor: Make, tmp_path: Path, off: str) -> None:
    """Without Landlock, a filter or dropped capabilities a worker is nobody, whoever owns its directories; one that it
    then cannot use is an error."""
    host = make_supervisor(Hardening(**{off: False}))
    details = {item.layer: item.detail for item in host.hardening_report().workers}
    assert details[Layer.UID].endswith("with a granted directory the same, for want of Landlock or a filter")
    with start(host, Dir(directory(tmp_path / "open", (0, 0), 0o755), "/d")) as instance:
        assert ids(instance.pid) == (NOBODY, NOBODY)
    for owner in (0, UID):
        closed = directory(tmp_path / str(owner), (owner, owner), 0o700)
        with pytest.raises(InstantiationError, match=f"cannot be read by the worker, which is user {NOBODY}") as caught:
            start(host, Dir(closed, "/d"))
        assert caught.value.cause is Cause.HOST


@pytest.mark.usefixtures("complete")
def test_no_file_of_others_by_being_root(make_supervisor: Make, tmp_path: Path) -> None:
    """A worker of root's has an owner's rights and no more: what is others', or denies its owner, stays closed."""
    path = directory(tmp_path / "d", (0, 0), 0o700)
    (path / "mine").touch(0)
    (path / "theirs").touch(0o600)
    if os.geteuid() == 0:
        os.chown(path / "theirs", UID, UID)
    refused = ["mine", "theirs"] if os.geteuid() == 0 else ["mine"]
    fd = directory_fd

    def act(_caller: Any) -> int:
        opened = 0
        for name in refused:
            try:
                files.open_beneath(fd(), name.encode(), os.O_RDONLY)
                opened += 1
            except PermissionError:
                pass
        os.close(files.open_beneath(fd(), b"file", os.O_RDONLY))
        return opened

    with start(make_supervisor("default"), Dir(path, "/d"), act=act) as instance:
        assert instance.func("act")() == 0


def test_without_landlock_nothing_can_be_written_by_who_may_only_read(make_supervisor: Make, tmp_path: Path) -> None:
    """The filter sees how files are opened: native code with a directory to read writes to no file of its user's, in
    the directory or outside, and makes none. (It does read them: that is what Landlock is for.)"""
    path = directory(tmp_path / "d", (0, 0), 0o755)
    outside = tmp_path / "outside"
    outside.write_text("text")
    for each in (outside, path / "file"):
        each.chmod(0o666)
    names = [str(outside), str(path / "file")]
    fd = directory_fd

    def act(_caller: Any) -> int:
        opened = 0
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT, os.O_TMPFILE | 2, 3):
            for name in (*names, "new"):
                for opens in (os.open, files.open_beneath):
                    try:
                        opens(*((fd(), name.encode()) if opens is files.open_beneath else (name,)), flags)
                        opened += 1
                    except OSError:
                        pass
        os.close(os.open("file", os.O_RDONLY, dir_fd=fd()))
        return opened

    host = make_supervisor(Hardening(landlock=False))
    states = {item.layer: item.state for item in host.hardening_report().workers}
    if states[Layer.SECCOMP] is not State.ACTIVE:
        pytest.skip("there is no filter here")
    with start(host, Dir(path, "/d"), act=act) as instance:
        assert instance.func("act")() == 0
    assert outside.read_text() == (path / "file").read_text() == "text"


def directory_fd() -> int:
    """In a worker: its one directory."""
    return next(fd for fd in range(3, 64) if _is_directory(fd))


def _is_directory(fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        return False


# --- limits ---


def test_limits(make_supervisor: Make, tmp_path: Path) -> None:
    """Files may grow only where a directory may be written, and as many may be open as the table of a guest holds."""
    assert granted._DESCRIPTORS > table.MAX_OPEN
    read, write = directory(tmp_path / "ro"), directory(tmp_path / "rw")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = str(min(soft, 16 + 1 + granted._DESCRIPTORS))
    fd = directory_fd

    def act(_caller: Any) -> int:
        file = files.open_beneath(fd(), b"file", os.O_WRONLY)
        try:
            os.lseek(file, 4, os.SEEK_SET)
            return os.write(file, b"more") - 4
        except OSError as exc:
            return exc.errno or -1
        finally:
            os.close(file)

    host = make_supervisor("default")
    with start(host, Dir(read, "/d")) as instance:
        found = limits(instance.pid)
        assert (found["Max file size"], found["Max open files"]) == (["0", "0"], [few, few])
    ours = limits(os.getpid())["Max file size"]
    with start(host, Dir(write, "/d", "rw"), act=act) as instance:
        found = limits(instance.pid)
        assert (found["Max file size"], found["Max open files"]) == (ours, [few, few])
        assert int(status(instance.pid)["SigIgn"], 16) & SIGXFSZ_BIT
        # One that the service has itself, or that somebody sets, is an error to the guest.
        resource.prlimit(instance.pid, resource.RLIMIT_FSIZE, (4, 4))
        assert instance.func("act")() == errno.EFBIG
    with start(host) as instance:
        found = limits(instance.pid)
        assert (found["Max file size"], found["Max open files"]) == (["0", "0"], ["16", "16"])


def test_files_have_the_services_mask(make_supervisor: Make, tmp_path: Path) -> None:
    """What a guest makes is as the service would make it: the umask of its start; native code cannot change it."""
    path = directory(tmp_path / "d")
    before = os.umask(0o027)
    try:
        host = make_supervisor("default")
        host.hardening_report()  # by now its fork server has started
    finally:
        os.umask(before)
    fd = directory_fd

    def act(_caller: Any) -> int:
        os.close(files.open_beneath(fd(), b"made", os.O_CREAT | os.O_WRONLY, 0o666))
        try:
            os.umask(0)
        except OSError:
            return 1
        os.close(files.open_beneath(fd(), b"open", os.O_CREAT | os.O_WRONLY, 0o666))
        return 2

    with start(host, Dir(path, "/d", "rw"), act=act) as instance:
        instance.func("act")()
    assert (path / "made").stat().st_mode & 0o777 == 0o640
    if (path / "open").exists():
        assert (path / "open").stat().st_mode & 0o777 == 0o640


# --- the report ---

ADD_NOTHING = "landlock.allow_beneath = lambda *_args, **_kw: None"
ADD_TOO_MUCH = """
real = landlock.allow_beneath
landlock.allow_beneath = lambda fd, version, directory, *, writable: real(fd, version, directory, writable=True)"""
REFUSE = """
def refuse(*_args, **_kw): raise OSError(1, "landlock_add_rule: Operation not permitted")
landlock.allow_beneath = refuse"""
ALLOW_MODES = """
from pdsandbox.platform.lockdown import filters
real = filters.loading_files
filters.loading_files = lambda **kw: {**real(**kw), 91: 0x7FFF0000}"""
OTHER_USER = """
from pdsandbox.platform.lockdown import privileges
real = privileges.become
privileges.become = lambda uid, gid: real(0, gid)"""

UNUSABLE = """
from pdsandbox.worker.granted import Granted
def check(self): raise OSError(13, "cannot be used")
Granted.check_usable = check"""


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("code", "layers", "why"),
    [
        (ADD_NOTHING, {Layer.LANDLOCK_FILES}, "with directories: applied, but does not hold: [Errno 13]"),
        (ADD_TOO_MUCH, {Layer.LANDLOCK_FILES}, "with directories: applied, but does not hold: writing to a file succ"),
        (REFUSE, LANDLOCK, "with directories: Landlock: a filter that the service itself runs under"),
        (ALLOW_MODES, {Layer.SECCOMP}, "with directories: applied, but does not hold: changing a mode succeeded"),
        (UNUSABLE, {Layer.UID}, "with directories: [Errno 13] cannot be used"),
        pytest.param(OTHER_USER, {Layer.UID}, "applied, but does not hold: the user or group", marks=needs_root),
    ],
    ids=["no rule", "a rule for writing", "no rules to be had", "a filter with a hole", "no use", "another user"],
)
def test_what_fails_with_directories_only_is_said(
    make_supervisor: Make, tmp_path: Path, code: str, layers: set[Layer], why: str
) -> None:
    """In the row of workers, and strict refuses; workers without directories have what they had."""
    python = wrapper(tmp_path, f"from pdsandbox.platform.lockdown import landlock\n{code}")
    host = make_supervisor("default", python=python)
    missing = host.hardening_report().missing
    assert {item.layer for item in missing} == layers
    assert missing[0].detail.startswith(why)
    with start(host) as instance:
        assert instance.func("act")() == 0
        assert status(instance.pid)["Seccomp"] == "2"
    with pytest.raises(InstantiationError, match="cannot be locked down as required"):
        Supervisor(hardening="strict", python=python)


@pytest.mark.usefixtures("complete")
def test_a_worker_that_cannot_be_locked_down_around_its_directories(make_supervisor: Make, tmp_path: Path) -> None:
    """It never meets its guest: HOST, with the reason."""
    python = wrapper(tmp_path, f"from pdsandbox.platform.lockdown import landlock\n{REFUSE}")
    host = make_supervisor("default", python=python)
    with pytest.raises(InstantiationError) as caught:
        start(host, Dir(directory(tmp_path / "d"), "/d"))
    assert caught.value.cause is Cause.HOST
    assert caught.value.message.endswith("landlock_add_rule: Operation not permitted")


def test_the_report_tells_of_directories(make_supervisor: Make) -> None:
    """Each layer that is another with directories says so; compilers have none."""
    report = make_supervisor("default").hardening_report()
    workers, compilers = ({item.layer: item for item in items} for items in (report.workers, report.compilers))
    for layer, words in ((Layer.LANDLOCK_FILES, "but in granted directories"), (Layer.SECCOMP, "with directories to")):
        if workers[layer].state is State.ACTIVE:
            assert words in workers[layer].detail
        assert "director" not in compilers[layer].detail


def test_only_directories(tmp_path: Path) -> None:
    """What is no directory is refused before anything is given up."""
    (tmp_path / "file").touch()
    with open(tmp_path / "file") as file, pytest.raises(NotADirectoryError):
        granted.Granted([(file.fileno(), False)])
