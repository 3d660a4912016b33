"""What a sandbox of this machine cannot be: said before anything is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from claw_core.local import cgroup, plan
from claw_core.local.setup import SANDBOX_USER
from claw_core.model import Mount, Refusal, Spec

_OURS: Final = ("/dev", "/proc")
"""Places of a sandbox that hold it together, so nothing of the user's may cover them."""


def refusal(spec: Spec, engine: str) -> Refusal | None:
    """Say why an engine cannot have a spec, or return None."""
    if spec.resources.cpus is not None and "cpu" not in cgroup.places():
        return Refusal(
            "the number of processors cannot be bounded without control groups",
            "leave it out, run claw as root, or choose another runtime",
        )
    for mount in spec.mounts:
        if not mount.target.startswith("/") or ".." in mount.target.split("/"):
            return Refusal(
                f"nothing can be mounted at {mount.target!r}",
                "give an absolute path without '..'",
            )
        found = _of_guard(mount, spec) if engine == "guard" else _of_namespaces(mount)
        if found is not None:
            return found
    return None


def _of_namespaces(mount: Mount) -> Refusal | None:
    target = os.path.normpath(f"/{mount.target.lstrip('/')}")
    ours = target == "/" or any(target == one or target.startswith(f"{one}/") for one in _OURS)
    if ours and not target.startswith("/dev/shm/"):  # noqa: S108 - inside the sandbox
        return Refusal(
            f"nothing can be mounted at {mount.target!r}: the sandbox needs that place itself",
            "choose another place, for instance below /mnt",
        )
    return None


def _of_guard(mount: Mount, spec: Spec) -> Refusal | None:
    """The guard engine shows the host's own tree, so nothing can be somewhere else in it."""
    source = str(mount.source)
    if mount.target != source and not mount.relocatable:
        return Refusal(
            f"without namespaces {source!r} cannot be seen at {mount.target!r}",
            f"mount it at its own path ({source}:{source}), or allow user namespaces "
            "(see `claw runtimes`)",
        )
    for other in spec.mounts:
        inside = other.source == mount.source or other.source in mount.source.parents
        if other.writable and not mount.writable and inside:
            # Landlock can only add permissions on the way down a tree.
            return Refusal(
                f"without namespaces {source!r} cannot be read-only inside the writable "
                f"{str(other.source)!r}",
                "make both read-only or both writable, or allow user namespaces "
                "(see `claw runtimes`)",
            )
    if plan.becomes_another() and not _permitted(mount.source, writable=mount.writable):
        return Refusal(
            f"the sandbox's user could not {'write to' if mount.writable else 'read'} {source!r}",
            "run claw as the owner of that directory instead of root",
        )
    return None


def _permitted(path: Path, *, writable: bool) -> bool:
    """Whether the sandbox's user has the permissions for a path and every directory above it."""
    wanted = (0o6 if writable else 0o4) | (0o1 if path.is_dir() else 0)
    for one, bits in ((path, wanted), *((parent, 0o1) for parent in path.parents)):
        status = one.stat()
        mode = status.st_mode >> (6 if status.st_uid == SANDBOX_USER else 0)
        if mode & bits != bits:
            return False
    return True
