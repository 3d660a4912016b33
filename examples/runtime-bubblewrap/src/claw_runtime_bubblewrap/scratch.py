"""The directories of the instances: named after them, in one that belongs to this user alone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from claw_core.errors import RuntimeFault

_FENCED = ".gone"


def default() -> Path | None:
    """Where the instances of this user are; not in /tmp, where others could make it first."""
    try:
        chosen = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(chosen) if chosen.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "claw-runtime-bubblewrap"


def checked(found: Path | None) -> Path:
    """See that a place is this user's own, and return it.

    Raises:
        RuntimeFault: there is no such place, or others can change it.
    """
    if found is None:
        raise RuntimeFault("this user has no home", remedy="set XDG_CACHE_HOME")
    with contextlib.suppress(FileNotFoundError):
        status = found.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.geteuid():
            raise RuntimeFault(
                f"{found} is not a directory of this user alone",
                remedy=f"remove it, or chmod 700 {found}",
            )
    return found


def place() -> Path:
    """The place of this user, in this environment; errors as `checked`."""
    return checked(default())


def make(directory: Path, parts: Iterable[str] = ()) -> None:
    """Make a directory for this user alone, with parts that are named like absolute paths."""
    directory.parent.mkdir(0o700, parents=True, exist_ok=True)
    directory.mkdir(0o700)
    for inside in parts:
        part(directory, inside).mkdir(0o700)


def part(directory: Path, inside: str) -> Path:
    """The directory that the sandboxes of an instance see at the absolute path `inside`."""
    return directory / inside.strip("/").replace("/", "-")


def fence(directory: Path) -> None:
    """Rename an instance's directory, so that a bwrap which has not yet mounted it cannot."""
    with contextlib.suppress(FileNotFoundError):
        directory.rename(fenced(directory))


def fenced(directory: Path) -> Path:
    """What the directory is called when no sandbox may begin any more."""
    return directory.with_name(directory.name + _FENCED)


def exists(directory: Path) -> bool:
    """Whether there is anything of an instance's directory."""
    return os.path.lexists(directory) or os.path.lexists(fenced(directory))


def names(place: Path | None) -> set[str]:
    """Names of the instances that have a directory."""
    try:
        return {entry.name.removesuffix(_FENCED) for entry in checked(place).iterdir()}
    except FileNotFoundError:
        return set()
