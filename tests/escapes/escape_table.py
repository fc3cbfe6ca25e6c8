"""All attempts, by name."""

from __future__ import annotations

from escape_files import DESCRIPTORS, FILES, NETWORK
from escape_kernel import ALLOWED, KERNEL, NAMESPACES, OWN_BEHAVIOUR
from escape_memory import MEMORY
from escape_processes import PROCESSES
from escape_scene import Attempt

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
