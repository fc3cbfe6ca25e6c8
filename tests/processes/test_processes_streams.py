"""A program without standard streams: their numbers are free, and nothing of ours may end up there."""

from __future__ import annotations

import json

import pytest

CLOSED = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
SOURCE = """
    import json, os, sys, time
    closed = [int(n) for n in sys.argv[1].split(",")]
    for number in closed:
        os.close(number)

    from pdsandbox import HostFunction, Supervisor, WasmImports, in_worker
    from userland import ADD

    DIE = '(module (import "m" "f" (func $f)) (func (export "run") (call $f)))'

    def taken():
        # The closed numbers that are in use, and stay so: the housekeeper moves what it opens upward at once.
        deadline = time.monotonic() + 10
        while True:
            found = [number for number in closed if os.path.exists(f"/proc/self/fd/{number}")]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.002)

    def die(caller):
        os.write(2, b"last words")
        os._exit(4)

    host = Supervisor(spares=2)
    module = host.compile(ADD)
    instance = host.instantiate(module)
    facts = {"answer": instance.func("add")(1, 2)}
    facts["ours"] = taken()
    imports = WasmImports(functions={("m", "f"): HostFunction(in_worker(die))})
    try:
        host.instantiate(host.compile(DIE), imports).call("run")
    except Exception as exc:
        facts["death"] = [exc.cause.name, exc.exit_code, exc.stderr_tail.decode()]
    facts["again"] = host.instantiate(module).func("add")(2, 3)
    host.close()
    facts["after"] = taken()
    with open(sys.argv[2], "w") as out:
        json.dump(facts, out)
    os._exit(0)  # Python itself complains about closed streams when it flushes them
"""


@pytest.mark.parametrize("closed", CLOSED, ids=lambda numbers: "+".join(map(str, numbers)))
def test_closed_standard_streams(program, tmp_path, closed):
    """Whichever are closed before the import: everything works, and all our descriptors are above 2."""
    out = tmp_path / "facts.json"
    with program(SOURCE, ",".join(map(str, closed)), out) as script:
        code, _, err = script.end()
    assert (code, err) == (0, "")
    assert json.loads(out.read_text()) == {
        "answer": 3,
        "ours": [],
        "death": ["EXIT", 4, "last words"],
        "again": 5,
        "after": [],
    }
