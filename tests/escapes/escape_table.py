"""All attempts, by name: those of everywhere, and those in a worker that was granted directories."""

from __future__ import annotations

from escape_files import DESCRIPTORS, FILES, NETWORK
from escape_granted import OUTSIDE, READ_ONLY
from escape_kernel import ALLOWED, KERNEL, NAMESPACES, OWN_BEHAVIOUR
from escape_memory import MEMORY
from escape_processes import PROCESSES
from escape_scene import STAGES, Attempt
from escape_unseen import GRANTED_ALLOWED, UNSEEN

TABLE: dict[str, Attempt] = {
    attempt.name: attempt
    for attempt in (
        *FILES,
        *DESCRIPTORS,
        *NETWORK,
        *PROCESSES,
        *MEMORY,
        *NAMESPACES,
        *KERNEL,
        *OWN_BEHAVIOUR,
        *ALLOWED,
    )
}
GRANTED_TABLE: dict[str, Attempt] = {
    attempt.name: attempt for attempt in (*OUTSIDE, *READ_ONLY, *UNSEEN, *GRANTED_ALLOWED)
}
assert not TABLE.keys() & GRANTED_TABLE.keys()
#: What is tried at a stage; with hardening off ("free"), all.
ALL: dict[str, Attempt] = {**TABLE, **GRANTED_TABLE}


def table_at(stage: str) -> dict[str, Attempt]:
    """The attempts at a stage."""
    return TABLE if stage in STAGES else ALL
