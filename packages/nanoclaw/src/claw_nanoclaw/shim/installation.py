"""Whether a directory is a NanoClaw installation, and of which version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from claw_core.errors import ConfigError
from claw_nanoclaw.database import registered
from claw_nanoclaw.shim.layout import Layout


def require(directory: Path) -> Path:
    """Return the real path of a NanoClaw installation.

    Raises:
        ConfigError: it is none.
    """
    root = directory.resolve()
    missing = [name for name in ("package.json", "groups") if not (root / name).exists()]
    if missing:
        raise ConfigError(
            f"{root} is no NanoClaw installation: it has no {' and no '.join(missing)}",
            cleaned="nothing was written",
            remedy="name its directory with --dir",
        )
    try:
        name = json.loads((root / "package.json").read_text()).get("name")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{root}/package.json cannot be read: {error}",
            cleaned="nothing was written",
            remedy="name the directory of NanoClaw with --dir",
        ) from None
    if "nanoclaw" not in str(name):
        raise ConfigError(
            f"{root} is no NanoClaw installation: its package.json is that of {name}",
            cleaned="nothing was written",
            remedy="name its directory with --dir",
        )
    return root


def is_one(directory: Path) -> bool:
    """Whether a directory is a NanoClaw installation."""
    try:
        require(directory)
    except ConfigError:
        return False
    return True


def version(root: Path) -> str | None:
    """The version that its package.json names."""
    found = json.loads((root / "package.json").read_text()).get("version")
    return str(found) if found else None


def layout(root: Path, group: str) -> Layout:
    """How its containers for a group are laid out, by its version and its database.

    Raises:
        ConfigError: the database cannot be read.
    """
    if (version(root) or "1").split(".")[0] != "1":
        return "v2"
    known = registered(root).get(group)
    return "v1 main" if (known.is_main if known else group == "main") else "v1"


def image(root: Path) -> str:
    """The image that it builds."""
    if (version(root) or "1").split(".")[0] == "1":
        return "nanoclaw-agent:latest"
    return f"nanoclaw-agent-v2-{slug(root)}:latest"


def slug(root: Path) -> str:
    """How version 2 tells installations apart: the value of its label `nanoclaw-install`."""
    return hashlib.sha1(str(root).encode(), usedforsecurity=False).hexdigest()[:8]
