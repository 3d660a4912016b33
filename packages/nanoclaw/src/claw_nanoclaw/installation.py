"""Whether a directory is a NanoClaw installation, and of which version."""

from __future__ import annotations

import json
from pathlib import Path

from claw_core.errors import ConfigError


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
