"""Valid messages of every kind, small and always the same: what the fuzzer mutates and the scripts exchange."""

from __future__ import annotations

from pdsandbox.errors import Frame
from pdsandbox.externs import ExportType, FuncType, GlobalType, ImportType, MemoryType, TableType, TagType
from pdsandbox.hardening import Layer, State
from pdsandbox.protocol import control as c
from pdsandbox.protocol import messages as m

SLOT = bytes(range(16))
BASE = 0x7F12_3456_7000
ADD = FuncType(("i32", "i32"), ("i32",))
OFFERS = (
    m.OfferSpec("env", "pd_send", FuncType(("i32",) * 4, ("i32",)), m.Where.STUB, pd=1),
    m.OfferSpec("pd", "log\u202e", FuncType(("i32",) * 3, ()), m.Where.SUPERVISOR, pd=3, index=7),
    m.OfferSpec("", "é\0", FuncType((), ("f64", "i64")), m.Where.WORKER, pickled=b"\x80\x05N."),
)
LOAD = m.Load(10**9, 5_000_000, OFFERS, ("/usr/lib", "/tmp/\udcff"), (m.Resolve(ADD, b"add"),))
WASI = m.WasiSpec(
    (b"prog", b"", b"\xff"),
    (b"A=b=c",),
    (2**64 - 1, 0),
    2**64 - 1,
    (
        m.StreamSpec(relayed=True, tty=True, waits=True),
        m.StreamSpec(most=1 << 44),
        m.StreamSpec(data=b"once"),
    ),
    (m.DirSpec(b"/", True, 1 << 44), m.DirSpec(b"data", False, None)),
)
TRAPPED = m.Error(
    m.Failure.TRAP,
    fuel=99,
    trap_code=10,
    text="",
    frames=(Frame(3, "évil\x1b[2J", "m", 0x40, 0x1234), Frame(0, None, None, 0, 0)),
    base=BASE,
    size=2 << 16,
)
COMPILED = m.Compiled(
    2 << 20,
    (
        ImportType("env", "pd_now_micros", FuncType((), ("i64",))),
        ImportType("env", "memory", MemoryType(1, 2**64 - 1, is_64=True, shared=True, page_bytes=1)),
    ),
    (
        ExportType("add", ADD),
        ExportType("table", TableType("funcref", 0, 10)),
        ExportType("g", GlobalType("v128", mutable=True)),
        ExportType("tag", TagType(("externref", "f32"))),
    ),
)

#: At least one of each kind; of those with parts that may be missing, one with and one without.
MESSAGES: tuple[m.Message, ...] = (
    LOAD,
    m.Load(None, 0),
    m.Load(10**9, 0, wasi=m.WasiSpec()),
    m.Load(10**9, 5_000_000, OFFERS, wasi=WASI),
    m.Load(None, 0, resolve=(m.Resolve(ADD, b"add"),), instance=2**32 - 1, first=8),
    m.Resolve(ADD, "zażółć".encode()),
    m.Resolve(ADD, b"add", 2**32 - 1, 7),
    m.Call(0, m.SPIN, 10**9, 10**6, SLOT * 2),
    m.CallMany(1, 0, 2**64 - 1, 0, rows=3, width=1, slots=SLOT * 3),
    m.MemRead(0, 16, 32),
    m.MemRead(0, 16, 32, 7),
    m.MemWrite(65530, 6, b"abcdef"),
    m.MemWrite(65530, 6, b"abcdef", 7),
    m.MemGrow(3),
    m.MemGrow(2**64 - 1, 7),
    m.HostReturn(SLOT),
    m.HostFail(),
    m.StreamReply(0, b"what was read"),
    m.StreamReply(32),
    m.StreamTaken(),
    m.StreamTaken(7),
    m.Drop(),
    m.Drop(2**32 - 1),
    m.Compile(True, b"(module)"),
    m.Compile(False, b"\0asm\1\0\0\0"),
    m.Ready(),
    m.Loaded(17),
    m.Loaded(17, BASE, 1 << 32),
    m.Result(12, SLOT),
    m.Result(12, SLOT * 2, BASE, 1 << 16),
    m.Result(12, b""),
    m.Results(12, done=2, width=1, failed=False, slots=SLOT * 2),
    m.Results(12, done=0, width=0, failed=True, slots=b"", base=2**64 - 1, size=2**64 - 1),
    TRAPPED,
    m.Error(m.Failure.HOST_LIMIT, limit=1000, text="host_calls"),
    m.HostCall(7, SLOT * 3, b"to: a", b"hello"),
    m.HostCall(0, b"", base=BASE, size=1 << 16),
    m.HostLog(7, SLOT * 3, b"a message", b"", BASE, 1 << 16),
    m.StreamOut(1, b"hello\n"),
    m.StreamWrite(2, b"error\n"),
    m.StreamRead(4096),
    m.StreamPoll(m.FOREVER, bytes((1, 4, 0))),
    m.LinkTimes(0, m.LINK_LAYOUT.pack(1, 2**64 - 1, 10, 999_999_999, 0, (1 << 30) - 2) + b"a/link"),
    m.MemData(b"\0" * 16),
    m.MemDone(),
    m.MemGrown(1, BASE, 4 << 16),
    m.MemGrown(-1),
    COMPILED,
    m.Compiled(0, (), ()),
    m.Artifact(b"\x7fELF"),
)

PACKETS: tuple[c.Packet, ...] = (
    c.Config(
        "/opt/\udcff/libwasmtime.so",
        True,
        False,
        512 << 10,
        300 << 20,
        None,
        1 << 27,
        8,
        None,
        10**6,
        None,
        1 << 24,
        frozenset({Layer.UID, Layer.MDWE}),
        200,
        None,
        "/sys/fs/cgroup/x",
        256 << 20,
        None,
        100,
    ),
    c.Spawn(1, c.Role.COMPILER),
    c.Spawn(1, c.Role.WORKER, late=True),
    c.Spawn(2, c.Role.WORKER, late=True, unpickler="/s\udcff/site-packages"),
    c.Acknowledge(2**64 - 1),
    c.Kill(3),
    c.Hello(4242),
    c.Hello(4243, (), 400 << 20, 3 << 30),
    c.Hello(1, (c.Seen(c.Role.WORKER, Layer.SECCOMP, State.MISSING, "no f\u00fclter"),)),
    c.Spawned(1, 4243),
    c.Refused(2, 11),
    c.Exited(1, 9, None),
    c.Exited(1, None, 3),
    c.Exited(1, None, 3, 2**40, 2**50),
)
