"""The cache's key follows the engine's configuration: a change of that without a new revision fails here."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pdsandbox
from pdsandbox.locate import ENGINE_REVISION

#: Of each revision, what `configuration` gave. A new one comes with a new line; none is ever changed.
REVISIONS = {1: "96d2410cf764508f", 2: "b697cba4c782ea32"}


def configuration() -> str:
    """A digest of all that `Engine` sets, in order, whatever the comments and the layout."""
    tree = ast.parse((Path(pdsandbox.__file__).parent / "runtime" / "engine.py").read_text(encoding="utf-8"))
    constants = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    settings = [call for call in calls if "wasmtime_config_" in call or "wasm_config_" in call]
    assert len(settings) > 5
    return hashlib.sha256("\n".join([*constants, *settings]).encode()).hexdigest()[:16]


def test_another_configuration_is_another_revision():
    """Else code from before the change is found on disk, and the engine refuses it when it is to be instantiated."""
    assert REVISIONS.get(ENGINE_REVISION) == configuration(), (
        "Engine configures wasmtime anew: raise ENGINE_REVISION in pdsandbox/locate.py, and add to REVISIONS: "
        f"{ENGINE_REVISION + 1}: {configuration()!r}"
    )
    assert max(REVISIONS) == ENGINE_REVISION
    assert len(set(REVISIONS.values())) == len(REVISIONS)
