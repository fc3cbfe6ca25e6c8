"""Makes a machine of another kind out of this one, and runs a program on it: what it lacks, the program lacks too.

    python machines.py CONDITION ... -- COMMAND ...

Each condition survives exec and fork: a system-call filter that answers for the kernel, another user, a user
namespace, fewer capabilities, a read-only /proc. All calls that are to fail are in one filter, because one of them may
be the call that installs filters. Exit status 77: this machine cannot play that one; why is on standard error.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import struct
import sys
from collections.abc import Callable

SKIP = 77
UID = 1234

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_LOAD, _JEQ, _RET = 0x20, 0x15, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PRCTL, _SOCKET, _SECCOMP, _LANDLOCK = 157, 41, 317, (444, 445, 446)
_PR_SET_SECCOMP, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 22, 8, 24, 38, 47
_PR_SET_MDWE = 65
_DAC_READ_SEARCH, _KILL_CAP, _SETGID, _SETUID, _SYS_PTRACE, _SYS_ADMIN = 2, 5, 6, 7, 19, 21
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

#: (call, its first argument or None for any) -> the filter's answer
Answers = dict[tuple[int, "int | None"], int]
_FILTERED: dict[str, Answers] = {
    "no-seccomp": {(_SECCOMP, None): _ERRNO | errno.ENOSYS, (_PRCTL, _PR_SET_SECCOMP): _ERRNO | errno.EINVAL},
    "no-landlock": {(number, None): _ERRNO | errno.ENOSYS for number in _LANDLOCK},
    "landlock-off": {(number, None): _ERRNO | errno.EOPNOTSUPP for number in _LANDLOCK},
    "landlock-refused": {(_LANDLOCK[2], None): _ERRNO | errno.EPERM},
    "landlock-deadly": {(number, None): _KILL for number in _LANDLOCK},
    "restrict-deadly": {(_LANDLOCK[2], None): _KILL},
    "no-mdwe": {(_PRCTL, _PR_SET_MDWE): _ERRNO | errno.EINVAL},
    "mdwe-deadly": {(_PRCTL, _PR_SET_MDWE): _KILL},
    "no-tcp": {(_SOCKET, family): _ERRNO | errno.EAFNOSUPPORT for family in (2, 10)},
    "no-pidfd": {(434, None): _ERRNO | errno.ENOSYS},
}


class CannotPlay(Exception):
    """This machine cannot be made so."""


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise CannotPlay(f"{what}: {os.strerror(number)}")


def _prctl(what: str, *args: int) -> None:
    _check(_libc.prctl(args[0], *(ctypes.c_ulong(a) for a in (*args[1:], 0, 0, 0, 0)[:4])), what)


def _filter(answers: Answers) -> None:
    """Installs a filter that gives these answers, and lets all else through."""
    if platform.machine() != "x86_64":
        raise CannotPlay("the numbers of system calls are those of x86_64")
    program = [(_LOAD, 0, 0, 0)]
    for (number, first), answer in answers.items():
        if first is None:
            program += [(_JEQ, 0, 1, number), (_RET, 0, 0, answer)]
        else:  # offset 16: the lower half of the first argument
            program += [(_JEQ, 0, 4, number), (_LOAD, 0, 0, 16), (_JEQ, 0, 1, first), (_RET, 0, 0, answer)]
            program.append((_LOAD, 0, 0, 0))
    program.append((_RET, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *item) for item in program))
    fprog = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
    if _libc.syscall(_SECCOMP, 1, 0, fprog) and ctypes.get_errno() == errno.EACCES:
        _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)  # who is not root needs it
        _check(_libc.syscall(_SECCOMP, 1, 0, fprog), "seccomp")


def _keep_only(capability: int) -> None:
    """The capability, also after exec."""
    mask = 1 << capability
    header, data = struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", mask, mask, mask, 0, 0, 0)
    _check(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(data)), "capset")
    _prctl("ambient", _PR_CAP_AMBIENT, 2, capability)


def everybody_may_read(path: str) -> bool:
    """Whether a user with no rights of his own can reach and read `path`."""
    path = os.path.realpath(path)
    if not os.stat(path).st_mode & 0o4:
        return False
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o1:
            return False
    return True


def _everybody_may_run() -> bool:
    """Whether that user can run this Python with all that is needed."""
    places = [importlib.util.find_spec(name) for name in ("wasmtime", "pdsandbox")]
    needed = [sys.executable, os.__file__, *(place.origin for place in places if place and place.origin)]
    return all(map(everybody_may_read, needed))


def _ordinary() -> None:
    """A user without rights; only where this Python lies in a directory of root's own, with that to read files."""
    if os.geteuid():
        return
    reads = _everybody_may_run()
    if not reads:
        _prctl("keepcaps", _PR_SET_KEEPCAPS, 1)
    os.setgroups(())
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    _prctl("dumpable", 4, 1)  # as after an exec: else /proc/self would be root's
    if not reads:
        _keep_only(_DAC_READ_SEARCH)


def _user_namespace() -> None:
    """Root in a user namespace, in which there is nobody else."""
    uid, gid = os.geteuid(), os.getegid()
    if uid and not _everybody_may_run():
        raise CannotPlay("only root can run this Python")
    _check(_libc.unshare(_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _without(*capabilities: int) -> Callable[[], None]:
    def drop() -> None:
        if os.geteuid():
            raise CannotPlay("only root has capabilities to lose")
        for capability in capabilities:
            _prctl("capbset", _PR_CAPBSET_DROP, capability)

    return drop


def _read_only_proc() -> None:
    if os.geteuid():
        raise CannotPlay("only root can mount /proc anew")
    _check(_libc.unshare(_NEWNS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "private")
    _check(_libc.mount(b"/proc", b"/proc", None, _MS_BIND, None), "bind")
    _check(_libc.mount(None, b"/proc", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None), "read-only")


def _as_it_is() -> None:
    pass


_CHANGED: dict[str, Callable[[], None]] = {
    "as-it-is": _as_it_is,
    "root": _without(),
    "ordinary": _ordinary,
    "user-namespace": _user_namespace,
    "no-setuid": _without(_SETUID, _SETGID, _KILL_CAP),
    "no-sys-admin": _without(_SYS_ADMIN),
    "no-sys-ptrace": _without(_SYS_PTRACE),
    "read-only-proc": _read_only_proc,
}


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    conditions, command = arguments[:at], arguments[at + 1 :]
    answers: Answers = {}
    try:
        for condition in conditions:
            answers |= _FILTERED.get(condition, {})
        if answers:
            _filter(answers)
        for condition in conditions:
            if condition not in _FILTERED:
                _CHANGED[condition]()
    except (CannotPlay, OSError) as exc:
        print(f"{' '.join(conditions)}: {exc}", file=sys.stderr)
        sys.exit(SKIP)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
