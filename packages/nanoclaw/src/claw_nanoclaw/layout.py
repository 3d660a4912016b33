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


def mounts(root: Path, folder: str, *, main: bool) -> Iterator[Mount]:
    """Yield what is shown to a group beside its own folder, as far as it exists.

    The main group sees the installation itself, entry by entry: a share of the whole directory with
    something put over `.env` would still hold it on a runtime that shares directories.

    Args:
        root: the installation, as a real path.
        folder: the name of the group's folder.
        main: whether it is the main group.
    """
    if main:
        for entry in sorted(root.iterdir()):
            if not entry.name.startswith(".env"):
                yield from _mount(entry, f"{PROJECT}/{entry.name}", writable=entry.name == "store")
    yield from _mount(root / "groups" / "global", GLOBAL, writable=main)
    yield from _mount(root / "data" / "ipc" / folder, IPC, writable=True)


def _mount(source: Path, target: str, *, writable: bool) -> Iterator[Mount]:
    if (source.is_dir() or source.is_file()) and not source.is_symlink():
        yield Mount(source, target, writable=writable, authorised=True)
