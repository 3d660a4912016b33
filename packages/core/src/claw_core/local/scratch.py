"""The guard engine's private directories: made, listed, and removed whatever is in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from claw_core.local.listing import is_ours
from claw_core.local.setup import SANDBOX_USER

PARENT: Final = "/tmp"  # noqa: S108 - names in it are random, mode 0700, and never reused
"""Where they are must not depend on anybody's environment: a later process has to find them."""


def path(name: str) -> str:
    """Where the directory of an instance is."""
    return f"{PARENT}/{name}"


def make(name: str, owner: int | None) -> None:
    """Make the directory of an instance, for this user or for `owner`.

    Raises:
        OSError: it cannot be made, or something has its name.
    """
    os.mkdir(path(name), 0o700)
    if owner is not None:
        os.chown(path(name), owner, owner)


def listed(install: str) -> set[str]:
    """Names of instances of an installation that have a directory."""
    names = set()
    for entry in Path(PARENT).iterdir():
        if is_ours(entry.name, install):
            with contextlib.suppress(FileNotFoundError):
                if entry.lstat().st_uid in {os.geteuid(), SANDBOX_USER}:
                    names.add(entry.name)
    return names


def remove(name: str) -> None:
    """Remove the directory of an instance with everything in it; no process of it is left.

    A payload may have taken its own permissions away, or have nested directories deeper than a path
    or a recursion can reach; so directories are moved up to the top one by one, and emptied there.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        top = _open(path(name), None)
    except FileNotFoundError:
        return
    moved = 0
    try:
        fcntl.flock(top, fcntl.LOCK_EX)  # teardowns may meet
        while names := os.listdir(top):
            for one in names:
                if not _is_directory(one, top):
                    os.unlink(one, dir_fd=top)
                    continue
                directory = _open(one, top)
                try:
                    moved = _empty(directory, top, moved)
                finally:
                    os.close(directory)
                os.rmdir(one, dir_fd=top)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path(name))


def _empty(directory: int, top: int, moved: int) -> int:
    """Remove files and move directories up; return how many names for that are used up."""
    for one in os.listdir(directory):
        if not _is_directory(one, directory):
            os.unlink(one, dir_fd=directory)
            continue
        os.close(_open(one, directory))  # only what its owner may write to can be moved
        moved += 1
        while os.path.lexists(f"/proc/self/fd/{top}/.{moved}"):
            moved += 1
        os.rename(one, f".{moved}", src_dir_fd=directory, dst_dir_fd=top)
    return moved


def _is_directory(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _open(name: str, parent: int | None) -> int:
    """Open a directory that this user may list and change, which is arranged where needed."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if os.geteuid() != 0 and status.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
