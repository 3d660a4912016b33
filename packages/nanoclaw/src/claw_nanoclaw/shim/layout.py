"""What kind of container NanoClaw asks for, and for which group: told by its mounts and labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal, TypeAlias

from claw_core.errors import ConfigError
from claw_nanoclaw.shim.arguments import Run

Layout: TypeAlias = Literal["v1", "v1 main", "v2"]
LAYOUTS: Final[tuple[Layout, ...]] = ("v1", "v1 main", "v2")
"""The groups of version 1, its main group, and the sessions of version 2."""
FOLDERS: Final = {"/workspace/group": "v1", "/workspace/agent": "v2"}
"""Where the folder of the group is to be seen."""
PROJECT: Final = "/workspace/project"
"""Where the main group of version 1 sees the whole installation."""
LABEL: Final = "nanoclaw-group-folder"


def of(asked: Run) -> Layout:
    """The layout of a container.

    Raises:
        ConfigError: it is none of NanoClaw's.
    """
    targets = {mount.target for mount in asked.mounts}
    if "/workspace/agent" in targets:
        return "v2"
    if "/workspace/group" in targets:
        return "v1 main" if PROJECT in targets else "v1"
    raise ConfigError(
        f"{asked.name} mounts no group's folder, so this is no container of NanoClaw 1 or 2.0",
        cleaned="nothing was started",
        remedy="from NanoClaw 2.1 on, use its session driver instead of the shim",
    )


def group_of(asked: Run, root: Path) -> str:
    """The group that a container is for.

    Its folder is what decides: the name of a container has lost what is no letter, digit or dash.

    Raises:
        ConfigError: it cannot be told, or belongs to another installation.
    """
    groups = (root / "groups").resolve()
    for mount in asked.mounts:
        if mount.target in FOLDERS:
            folder = mount.source.resolve()
            if folder.parent != groups:
                raise ConfigError(
                    f"{asked.name} is for {folder}, which is no group of {root}",
                    cleaned="nothing was started",
                    remedy="write a shim for that installation: claw nanoclaw shim --dir DIR",
                )
            if not _agrees(asked, folder.name):
                raise ConfigError(
                    f"{asked.name} mounts the folder of {folder.name}, and is not named for it",
                    cleaned="nothing was started",
                    remedy="see which program has started it",
                )
            return folder.name
    raise ConfigError(f"it cannot be told which group {asked.name} is for")


def _agrees(asked: Run, group: str) -> bool:
    """Whether the label, or else the name, of a container is the one for a group."""
    if LABEL in asked.labels:
        return asked.labels[LABEL] == group
    plain = re.escape(re.sub(r"[^a-zA-Z0-9-]", "-", group))
    name = re.sub(r"[^a-zA-Z0-9-]", "-", asked.name)
    return re.fullmatch(rf"nanoclaw-(v2-)?{plain}-\d+", name) is not None
