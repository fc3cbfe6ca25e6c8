"""Attempts on memory: new machine code, and more memory than RLIMIT_DATA allows."""

from __future__ import annotations

import ctypes
import errno
import mmap

from escape_scene import NEEDS_ROOT, NOT_BUILT_IN, Attempt, Scene, call, calling, in_child, libc

_PAGE = mmap.PAGESIZE
_R, _W, _X = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
_SHARED, _PRIVATE, _ANONYMOUS = 1, 2, 0x20
_SHARED_VALIDATE, _DROPPABLE, _GROWSDOWN, _NORESERVE, _HUGETLB = 3, 8, 0x100, 0x4000, 0x40000
_GROWS_DOWN = 0x1000000
#: More than RLIMIT_DATA allows in any of the tests. Never touched.
MUCH = 1 << 30
#: More than a worker ever reserves: its page tables alone take 256 MiB for each 128 GiB.
HUGE = 1 << 40
_MERGEABLE, _PAGEOUT = 12, 21
_LIMITED = {"ENOMEM": "its limits hold with hardening off, too"}
_HUGE_PAGES = {"ENOMEM": "no huge pages are set aside here"}


def _map(size: int, prot: int, flags: int) -> int:
    return call("mmap", 0, size, prot, flags, -1, 0)


def _mapping(prot: int, flags: int, size: int = MUCH):
    return lambda _scene: call("munmap", _map(size, prot, flags), size)


def _page() -> int:
    return _map(_PAGE, _R | _W, _PRIVATE | _ANONYMOUS)


def _protect(prot: int, name: str = "mprotect", *more: int):
    """Give a fresh page this protection."""

    def attempt(_scene: Scene) -> None:
        page = _page()
        try:
            call(name, page, _PAGE, prot, *more)
        finally:
            call("munmap", page, _PAGE)

    return attempt


def _advise(advice: int):
    def attempt(_scene: Scene) -> None:
        page = _page()
        try:
            call("madvise", page, _PAGE, advice)
        finally:
            call("munmap", page, _PAGE)

    return attempt


def _text() -> int:
    """A page of machine code that runs."""
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    assert address is not None
    return address & -_PAGE


def _patch_text(_scene: Scene) -> None:
    call("mprotect", _text(), _PAGE, _R | _W | _X)
    call("mprotect", _text(), _PAGE, _R | _X)


def _run_new_code(_scene: Scene) -> None:
    page = _map(_PAGE, _R | _W, _PRIVATE | _ANONYMOUS)
    ctypes.memmove(page, b"\xc3", 1)  # ret
    call("mprotect", page, _PAGE, _R | _X)
    ctypes.CFUNCTYPE(None)(page)()


def _replace_text(_scene: Scene) -> None:
    call("mremap", _page(), _PAGE, _PAGE, 3, _text())  # MREMAP_MAYMOVE | MREMAP_FIXED


def _lowest_page_of_the_stack() -> int:
    with open("/proc/self/maps") as maps:
        return next(int(line.partition("-")[0], 16) for line in maps if line.endswith("[stack]\n"))


#: It only ever grows, so this page stays.
_STACK = _lowest_page_of_the_stack()


def _grow_the_stack_elsewhere(_scene: Scene) -> None:
    """The stack is not data to the kernel: moved, and made larger, it escapes RLIMIT_DATA."""
    call("mremap", _STACK, _PAGE, MUCH, 1)


def _reserve(_scene: Scene) -> None:
    call("munmap", _map(HUGE, _R, _PRIVATE | _ANONYMOUS | _NORESERVE), HUGE)


def _reserve_then_use(_scene: Scene) -> None:
    """Memory that nothing may be written to is no data yet."""
    start = _map(MUCH, 0, _PRIVATE | _ANONYMOUS)
    try:
        call("mprotect", start, MUCH, _R | _W)
    finally:
        call("munmap", start, MUCH)


def _move_the_break(_scene: Scene) -> None:
    end = call("brk", 0)
    if call("brk", end + MUCH) == end:
        raise OSError(errno.ENOMEM, "it did not move")
    call("brk", end)


def _shared_memory(_scene: Scene) -> None:
    call("shmctl", call("shmget", 0, MUCH, 0o1600), 0, 0)  # IPC_PRIVATE; IPC_RMID


def _semaphores(_scene: Scene) -> None:
    call("semctl", call("semget", 0, 1, 0o1600), 0, 0)


def _messages(_scene: Scene) -> None:
    call("msgctl", call("msgget", 0, 0o1600), 0, 0)


def _message_queue(_scene: Scene) -> None:
    name = b"pdsandbox-escape"
    call("close", call("mq_open", name, 0o102, 0o600, 0))
    call("mq_unlink", name)


def _executable(prot: int):
    return _mapping(prot, _PRIVATE | _ANONYMOUS, _PAGE)


MEMORY = (
    # W and X at once are refused to everybody; a compiler, and a worker that loads, make code by mprotect.
    Attempt("map writable code", _executable(_R | _W | _X), "EPERM"),
    Attempt("map executable memory", _executable(_R | _X), "EPERM"),
    Attempt("mprotect to executable", _protect(_R | _X), "EPERM", loading="ok", compiling="ok"),
    Attempt("mprotect to writable code", _protect(_R | _W | _X), "EPERM"),
    Attempt("mprotect code to writable code", _patch_text, "EPERM"),
    Attempt("run new machine code", _run_new_code, "EPERM", loading="ok", compiling="ok"),
    Attempt("pkey_mprotect", _protect(_R | _X, "pkey_mprotect", -1), "EPERM"),
    Attempt("move a page over code", in_child(_replace_text), "ENOMEM"),
    Attempt("READ_IMPLIES_EXEC", in_child(lambda _: call("personality", 0x0400000)), "EPERM"),
    # What RLIMIT_DATA does not see.
    Attempt("shared memory", _mapping(_R | _W, _SHARED | _ANONYMOUS), "EPERM"),
    Attempt("shared memory, validated", _mapping(_R | _W, _SHARED_VALIDATE | _ANONYMOUS), "EPERM", freely="EINVAL"),
    Attempt("memory that grows down", _mapping(_R | _W, _PRIVATE | _ANONYMOUS | _GROWSDOWN), "EPERM"),
    Attempt(
        "droppable memory",
        _mapping(_R | _W, _DROPPABLE | _ANONYMOUS, _PAGE),
        "EPERM",
        unproven={"EINVAL": "not in this kernel"},
    ),
    Attempt("huge pages", _mapping(_R | _W, _PRIVATE | _ANONYMOUS | _HUGETLB, 2 << 20), "EPERM", unproven=_HUGE_PAGES),
    Attempt("let memory grow down", _protect(_R | _W | _GROWS_DOWN), "EPERM", freely="EINVAL"),
    Attempt("a larger stack, elsewhere", _grow_the_stack_elsewhere, "ENOMEM"),
    Attempt("memory for page tables", _reserve, "ENOMEM", unproven=_LIMITED),
    Attempt("map plain memory", _mapping(_R | _W, _PRIVATE | _ANONYMOUS), "ENOMEM", unproven=_LIMITED),
    Attempt("make a reservation writable", _reserve_then_use, "ENOMEM", unproven=_LIMITED),
    Attempt("move the break", _move_the_break, "ENOMEM", unproven=_LIMITED),
    Attempt("fill the heap", lambda _s: bytearray(MUCH), "MemoryError", unproven={"MemoryError": _LIMITED["ENOMEM"]}),
    Attempt("System V shared memory", _shared_memory, "SIGSYS", unproven=NOT_BUILT_IN),
    Attempt("System V semaphores", _semaphores, "EPERM", unproven=NOT_BUILT_IN),
    Attempt("System V messages", _messages, "EPERM", unproven=NOT_BUILT_IN),
    Attempt("POSIX message queue", _message_queue, "EPERM", unproven=NOT_BUILT_IN),
    Attempt("remap_file_pages", calling("remap_file_pages", 0, 0, 0, 0, 0), "EPERM", freely="EINVAL"),
    Attempt("lock memory", in_child(lambda _: call("mlockall", 6)), "EPERM"),  # MCL_FUTURE, MCL_ONFAULT
    Attempt("mincore", lambda _s: call("mincore", _text(), _PAGE, ctypes.create_string_buffer(1)), "EPERM"),
    Attempt("share equal pages", _advise(_MERGEABLE), "EPERM", unproven={"EINVAL": "not in this kernel"}),
    Attempt("push memory out", _advise(_PAGEOUT), "EPERM", unproven={"EINVAL": "not in this kernel"}),
    Attempt("where memory lies", calling("mbind", 0, 0, 0, 0, 0, 0), "EPERM", unproven=NOT_BUILT_IN),
    Attempt(
        "userfaultfd", lambda _s: call("close", call("userfaultfd", 1)), "SIGSYS", unproven=NEEDS_ROOT | NOT_BUILT_IN
    ),
    Attempt("seal memory", calling("mseal", 0, 0, 0), "EPERM", unproven=NOT_BUILT_IN),
)  # fmt: skip - a table
