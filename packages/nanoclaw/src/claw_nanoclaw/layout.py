"""What a group sees of the machine: as NanoClaw 1 lays it out, and nothing else.

The group's own folder, at `/workspace/group`, is core's. What the agent keeps, which NanoClaw
mounts at its home, travels with the agent's state: never is anybody's whole `~/.claude` shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from claw_core.model import Mount

PROJECT: Final = "/workspace/project"
GLOBAL: Final = "/workspace/global"
IPC: Final = "/workspace/ipc"


def mounts(root: Path, folder: str, nothing: Path, *, main: bool) -> tuple[Mount, ...]:
    """Return what is shown to a group beside its own folder, as far as it exists.

    Args:
        root: the installation.
        folder: the name of the group's folder.
        nothing: an empty file, to be seen in place of what is kept from everybody.
        main: whether it is the main group, which sees the installation itself, read-only.
    """
    return tuple(_mounts(root.resolve(), folder, nothing, main=main))


def _mounts(root: Path, folder: str, nothing: Path, *, main: bool) -> Iterator[Mount]:
    if main:
        yield Mount(root, PROJECT, authorised=True)
        for secret in sorted(root.glob(".env*")):
            if secret.is_file():
                yield Mount(nothing, f"{PROJECT}/{secret.name}", authorised=True)
    for place, target, writable in (
        (root / "store", f"{PROJECT}/store" if main else None, True),
        (root / "groups" / "global", GLOBAL, main),
        (root / "data" / "ipc" / folder, IPC, True),
    ):
        if target is not None and place.is_dir() and not place.is_symlink():
            yield Mount(place, target, writable=writable, authorised=True)
