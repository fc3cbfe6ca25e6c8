"""The disk cache at work: what one supervisor compiled another one runs, and nothing that was changed."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from leaks import fds

import pdsandbox
from pdsandbox import I32, CompileError, EngineConfig, Limits, Supervisor
from pdsandbox.platform import cpu, os_
from pdsandbox.supervisor import processes

SOURCE = """(module (import "env" "pd_now_micros" (func (result i64))) (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"""


def works(host, source=SOURCE):
    """The module compiles, and is what it is."""
    module = host.compile(source)
    assert module.exports() == ["memory", "add"]
    assert [(item.module, item.name) for item in module.imports()] == [("env", "pd_now_micros")]
    with host.instantiate(module) as instance:
        assert instance.call("add", [I32(1), I32(2)]) == [I32(3)]
    return module


def entries(path):
    """The files of the cache."""
    return sorted(path.glob("*.code"))


def test_a_second_supervisor_compiles_nothing(make_supervisor, compilers, told):
    """What the first one compiled works there just so."""
    first = works(make_supervisor())
    second = works(make_supervisor())
    assert len(compilers) == 1
    assert second.sha256 == first.sha256
    assert second.export_types() == first.export_types()
    assert second.imports() == first.imports()
    assert told.warnings == []


def test_another_program_compiles_nothing(make_supervisor, compilers, tmp_path):
    """What a process that has ended stored is loaded by this one."""
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(pdsandbox.__file__).parents[1])!r})
        from pdsandbox import Supervisor
        with Supervisor(cache_dir={str(tmp_path / "modules")!r}, spares=0) as host:
            host.compile({SOURCE!r})
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    works(make_supervisor())
    assert compilers == []


def test_without_cache_dir_there_is_none(make_supervisor, compilers, tmp_path):
    """Nothing is written anywhere."""
    for _ in range(2):
        works(make_supervisor(cache_dir=None))
    assert len(compilers) == 2
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("where", ["first", "types", "code", "last"])
def test_a_flipped_byte_never_runs(make_supervisor, compilers, told, tmp_path, where):
    """It is compiled anew, works, and is stored anew; one warning."""
    works(make_supervisor())
    (entry,) = entries(tmp_path / "modules")
    raw = bytearray(entry.read_bytes())
    raw[{"first": 0, "types": 130, "code": len(raw) // 2, "last": -1}[where]] ^= 0x80
    entry.write_bytes(raw)
    works(make_supervisor())
    assert len(compilers) == 2
    told.once("damaged entry", entry.name)
    assert entry.with_suffix(".damaged").read_bytes() == raw
    works(make_supervisor())
    assert len(compilers) == 2
    told.once()


def test_the_tag_is_what_stands_between(make_supervisor, tmp_path, monkeypatch):
    """A positive control: without the check of the tag, a changed constant would run."""
    from pdsandbox.supervisor import diskformat

    source = '(module (func (export "n") (result i32) (i32.const 0x12345678)))'
    make_supervisor().compile(source)
    (entry,) = entries(tmp_path / "modules")
    raw = entry.read_bytes()
    assert raw.count(b"\x78\x56\x34\x12") == 1
    entry.write_bytes(raw.replace(b"\x78\x56\x34\x12", b"\x21\x43\x65\x07"))
    answers = {}
    for checked in (False, True):
        with monkeypatch.context() as patch:
            if not checked:
                patch.setattr(diskformat.Sealer, "check", lambda _self, _tag: None)
            host = make_supervisor()
            with host.instantiate(host.compile(source)) as instance:
                answers[checked] = instance.func("n")()
    assert answers == {False: 0x07654321, True: 0x12345678}


def test_one_warning_for_each_supervisor(make_supervisor, told, tmp_path):
    """However much is wrong."""
    host = make_supervisor()
    for number in range(3):
        host.compile(f"(module (memory {number}))")
    for entry in entries(tmp_path / "modules"):
        os.truncate(entry, 10)
    host = make_supervisor()
    for number in range(3):
        host.compile(f"(module (memory {number}))")
    told.once()


CONFIGURATIONS = {
    "fuel": {"engine": EngineConfig(fuel=False)},
    "interruptible": {"engine": EngineConfig(interruptible=True)},
    "stack_bytes": {"limits": Limits(stack_bytes=1 << 20)},
}


@pytest.mark.parametrize("which", CONFIGURATIONS)
def test_another_configuration_is_another_entry(make_supervisor, compilers, tmp_path, which):
    """Side by side, and neither loads the other's."""
    for _ in range(2):
        works(make_supervisor())
        works(make_supervisor(**CONFIGURATIONS[which]))
    assert len(compilers) == 2
    assert len(entries(tmp_path / "modules")) == 2


@pytest.mark.parametrize("what", ["pdsandbox", "wasmtime", "processor", "text"])
def test_two_versions_side_by_side(make_supervisor, compilers, tmp_path, monkeypatch, what):
    """Another version, another processor, the same bytes as text: each has entries of its own."""
    library, version = processes.wasmtime_library()
    for _ in range(2):
        make_supervisor().compile(b"\0asm\1\0\0\0")
        with monkeypatch.context() as patch:
            if what == "pdsandbox":
                patch.setattr(processes, "__version__", "99")
            elif what == "wasmtime":
                patch.setattr(processes, "wasmtime_library", lambda: (library, "99"))
            elif what == "processor":
                patch.setattr(os_, "cpu_features", lambda: b"x86_64 avx1024")
            if what == "text":
                with pytest.raises(CompileError):
                    make_supervisor().compile("\0asm\1\0\0\0")
            else:
                make_supervisor().compile(b"\0asm\1\0\0\0")
    assert len(entries(tmp_path / "modules")) == (1 if what == "text" else 2)
    assert len(compilers) == (3 if what == "text" else 2)
    assert version != "99"


def test_the_processors_features():
    """They are told, sorted, and each is a word; of the first processor only."""
    found = os_.cpu_features().split()
    assert found[0] == os.uname().machine.encode()
    assert len(found) > 10
    assert found[1:] == sorted(found[1:])
    record = b"processor\t: 0\nflags\t\t: fpu avx sse\nbugs: x\n\nprocessor : 1\nflags : other\n"
    assert cpu.flags_of(record) == [b"avx", b"fpu", b"sse"]
    assert cpu.flags_of(b"processor: 0\nFeatures : fp asimd\n") == [b"asimd", b"fp"]
    assert cpu.flags_of(b"nothing") == []


def test_vanished_and_closed_in_the_middle(make_supervisor, compilers, told, tmp_path):
    """The directory goes, comes back as something else, and is given back: no compilation fails."""
    host, path = make_supervisor(), tmp_path / "modules"
    host.compile("(module (memory 1))")
    for entry in entries(path):
        entry.unlink()
    path.rmdir()
    host.compile("(module (memory 2))")
    assert len(entries(path)) == 1
    path.chmod(0o755)
    host.compile("(module (memory 3))")
    told.once("mode 755")
    path.chmod(0o700)
    host.compile("(module (memory 4))")
    assert len(entries(path)) == 2
    assert len(compilers) == 4


def test_a_relative_directory(make_supervisor, compilers, tmp_path, monkeypatch):
    """It means what it means when the supervisor is made; a path object and a str are the same."""
    monkeypatch.chdir(tmp_path)
    relative = make_supervisor(cache_dir="here")
    monkeypatch.chdir("/")
    works(relative)
    works(make_supervisor(cache_dir=tmp_path / "here"))
    assert len(compilers) == 1
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o700


def test_a_relative_directory_of_nowhere(tmp_path, monkeypatch):
    """Where the working directory is gone: ValueError that says so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ValueError, match="cache_dir 'here' is relative"):
        Supervisor(cache_dir="here")


@pytest.mark.parametrize(
    "wrong",
    ["", "a\0b", b"bytes", 1, True, object()],
    ids=lambda given: "object" if type(given) is object else repr(given),
)
def test_what_is_no_directory(wrong):
    """ValueError or TypeError that names the option, at once."""
    with pytest.raises((ValueError, TypeError), match="cache_dir"):
        Supervisor(cache_dir=wrong)


def test_cache_bytes_caps_the_directory(make_supervisor, tmp_path):
    """Not only memory."""
    host = make_supervisor()
    host.compile("(module (memory 1))")
    (first,) = entries(tmp_path / "modules")
    small = make_supervisor(cache_bytes=2 * first.stat().st_size)
    for number in range(5):
        small.compile(f"(module (memory {number}))")
    assert len(entries(tmp_path / "modules")) == 2
    small = make_supervisor(cache_bytes=0)
    small.compile("(module (memory 7))")
    assert len(entries(tmp_path / "modules")) == 2


def test_what_was_loaded_is_closed_with_the_supervisor(make_supervisor):
    """Its descriptor is the supervisor's as a compiled one's is; a module that is held says so."""
    works(make_supervisor())
    before = fds()
    host = make_supervisor()
    module = host.compile(SOURCE)
    assert any("pdsandbox-artifact" in target for fd, target in fds().items() if fd not in before)
    host.close()
    assert fds() == before
    with pytest.raises(pdsandbox.InstantiationError, match="closed"):
        host.instantiate(module)


def test_what_was_loaded_is_sealed_and_shared(make_supervisor):
    """All workers get the same sealed memory file."""
    works(make_supervisor())
    module = make_supervisor().compile(SOURCE)
    artifact = module.compiled.artifact.duplicate()
    try:
        assert os_.is_sealed(artifact.fd)
        with pytest.raises(PermissionError):
            os.pwrite(artifact.fd, b"x", 0)
    finally:
        artifact.close()


def test_equal_modules_at_once(make_supervisor, compilers):
    """Threads that want one module: it is compiled once, stored, and loaded once by the next supervisor's."""
    for _ in range(2):
        host = make_supervisor()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            modules = list(pool.map(host.compile, [SOURCE] * 8))
        assert len({id(module.compiled) for module in modules}) == 1
    assert len(compilers) == 1


def test_errors_are_not_kept(make_supervisor, compilers, tmp_path):
    """What does not compile leaves nothing behind, and fails again."""
    errors = []
    for _ in range(2):
        with pytest.raises(CompileError) as caught:
            make_supervisor().compile("(module (func (result i32)))")
        errors.append(caught.value)
    assert errors[0] == errors[1] == pickle.loads(pickle.dumps(errors[0]))
    assert len(compilers) == 2
    assert not (tmp_path / "modules").exists()
