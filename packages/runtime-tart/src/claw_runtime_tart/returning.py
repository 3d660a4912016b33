"""Brings a directory back from a guest: whole, and in the place of the old one in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs

from claw_core.model import Sink
from claw_core.staging import Stage
from claw_core.tasks import in_thread
from claw_core.unpack import unpacking

_EXCHANGE: Final = 2
"""RENAME_EXCHANGE of Linux's renameat2(2), and RENAME_SWAP of macOS' renamex_np(2)."""
_AT_FDCWD: Final = -100
_CACHES: Final = frozenset({"/.git/index", "/.git/index.lock", "/.git/FETCH_HEAD"})
"""What an editor that only looks writes anew all the time."""


@attrs.frozen
class Replaced:
    """What became of something that was replaced.

    Attributes:
        state: `state` of what is there now.
        kept: where that is which was there, and was not as it was expected; else it is gone.
    """

    state: int
    kept: Path | None


async def replace(
    target: Path, expected: int, name: str, download: Callable[[Sink], Awaitable[None]]
) -> Replaced:
    """Put what a download gives in the place of a directory or file.

    Until it is there whole, what was there stays; a failure leaves nothing else behind.

    Args:
        target: what is replaced.
        expected: its `state`; what somebody has changed since is not lost.
        name: the top-level member of the download.
        download: sends a tar stream to the sink that it is given.

    Raises:
        ArchiveError: the stream is damaged or unsafe.
        OSError: it cannot be put there.
    """
    stage = Stage(target.parent)
    try:
        await in_thread(stage.open)
        fresh = stage.path / target.name
        async with unpacking(fresh, name, as_is=True) as sink:
            await download(sink)
        now = await in_thread(state, fresh)
        await in_thread(_place, fresh, target)
        if not await in_thread(os.path.lexists, fresh) or await in_thread(state, fresh) == expected:
            return Replaced(now, None)
        kept = target.with_name(f"{target.name}.{secrets.token_hex(6)}")
        await in_thread(fresh.rename, kept)
        return Replaced(now, kept)
    finally:
        await in_thread(stage.close)


def state(path: Path) -> int:
    """A number that changes with the content of a tree, other than its caches; blocks."""
    found = 0 if path.is_dir() else _look(path, "")
    folders = [(path, "")] if path.is_dir() else []
    while folders:
        folder, prefix = folders.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                where = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders.append((folder / entry.name, where))
                    found ^= hash((where, entry.inode()))
                elif where not in _CACHES and entry.name != ".DS_Store":
                    with contextlib.suppress(FileNotFoundError):
                        found ^= _look(entry, where)
    return found


def _look(path: Path | os.DirEntry[str], where: str) -> int:
    status = os.lstat(path)
    return hash((where, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns))


def swap(first: os.PathLike[str], second: os.PathLike[str]) -> None:
    """Let two names change places in one step; blocks.

    Raises:
        OSError: they do not.
    """
    library = ctypes.CDLL(None, use_errno=True)
    one, other = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        failed = library.renamex_np(one, other, _EXCHANGE)
    else:
        failed = library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(second))


def _place(fresh: Path, target: Path) -> None:
    if not os.path.lexists(target):  # somebody has removed it
        fresh.rename(target)
    elif target.is_dir() != fresh.is_dir():
        raise OSError(errno.EEXIST, "a file would come in the place of a directory, or it in its")
    else:
        swap(fresh, target)
