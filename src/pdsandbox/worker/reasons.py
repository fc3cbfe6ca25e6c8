"""Why a layer of the lock-down is missing, in words for who owns the service, and which layers stand or fall together.

Knows errno values and wait statuses; tries nothing itself.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Final

from ..hardening import Layer
from ..platform.lockdown import privileges

__all__ = ["LANDLOCK", "ended_by", "parts", "reason"]

#: The layers that are Landlock's: since which ABI, and since which Linux.
LANDLOCK: Final = (
    (Layer.LANDLOCK_FILES, 1, "5.13"),
    (Layer.LANDLOCK_TCP, 4, "6.7"),
    (Layer.LANDLOCK_SCOPE, 6, "6.12"),
)

_A_FILTER: Final = (
    "a filter that the service itself runs under, as a container's or systemd's, refuses it: allow it there"
)
_PROC: Final = "/proc/self/oom_score_adj cannot be written: give the service a writable /proc"
_NOBODY: Final = f"user and group {privileges.NOBODY} do not exist in this user namespace: map them into it"
_REMEDIES: Final = {
    (Layer.OOM_SCORE, errno.EACCES): _PROC,
    (Layer.OOM_SCORE, errno.EROFS): _PROC,
    (Layer.OOM_SCORE, errno.ENOENT): _PROC,
    (Layer.UID, errno.EINVAL): _NOBODY,
    (Layer.UID, errno.EPERM): f"{_NOBODY}, and allow setgroups",
    (
        Layer.LANDLOCK_FILES,
        errno.ENOSYS,
    ): "this kernel has no Landlock (needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK), or "
    "a container's system-call filter hides it",
    (Layer.LANDLOCK_FILES, errno.EOPNOTSUPP): 'Landlock is not enabled: add "landlock" to the boot parameter lsm=',
    (Layer.LANDLOCK_FILES, errno.EPERM): f"Landlock: {_A_FILTER}",
    (
        Layer.LANDLOCK_FILES,
        errno.E2BIG,
    ): "the service itself runs under 16 Landlock rulesets, the most there can be: nest fewer sandboxes",
    (Layer.SECCOMP, errno.ENOSYS): "no seccomp filters: needs CONFIG_SECCOMP_FILTER, and a container that allows them",
    (Layer.SECCOMP, errno.EINVAL): "no seccomp filters: needs CONFIG_SECCOMP_FILTER",
    (Layer.SECCOMP, errno.EPERM): f"seccomp filters: {_A_FILTER}",
    (Layer.MDWE, errno.EINVAL): "this kernel cannot do it: needs Linux 6.3",
    (Layer.NAMESPACES, errno.EPERM): "namespaces are refused here: allow user namespaces, or run the service as root",
    (Layer.NAMESPACES, errno.ENOSPC): "no more namespaces: raise user.max_user_namespaces",
}


def parts(layer: Layer) -> tuple[Layer, ...]:
    """The layers that are applied together with `layer`."""
    return tuple(part for part, _, _ in LANDLOCK) if layer is Layer.LANDLOCK_FILES else (layer,)


def ended_by(status: int) -> str:
    """Why a layer is missing when trying it ended the process."""
    return f"trying it ends the process ({signal.Signals(os.WTERMSIG(status)).name}): {_A_FILTER}"


def reason(layer: Layer, exc: OSError) -> str:
    """Why a layer is missing, and what to do about it."""
    group = Layer.LANDLOCK_FILES if layer in parts(Layer.LANDLOCK_FILES) else layer
    return _REMEDIES.get((group, exc.errno or 0)) or str(exc)
