"""Brings a directory back from a guest: whole, and in the place of the old one in one step."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from claw_core.model import Sink
from claw_core.tasks import in_thread
from claw_core.unpack import unpacking

_EXCHANGE: Final = 2
"""RENAME_EXCHANGE of Linux's renameat2(2), and RENAME_SWAP of macOS' renamex_np(2)."""
_AT_FDCWD: Final = -100


async def replace(target: Path, name: str, download: Callable[[Sink], Awaitable[None]]) -> None:
    """Put what a download gives in the place of a directory or file.

    Until it is there whole, what was there stays; a failure leaves nothing else behind.

    Args:
        target: what is replaced.
        name: the top-level member of the download.
        download: sends a tar stream to the sink that it is given.

    Raises:
        ArchiveError: the stream is damaged or unsafe.
        OSError: it cannot be put there.
    """
    fresh = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        async with unpacking(fresh, name) as sink:
            await download(sink)
        await in_thread(_place, fresh, target)
    finally:
        await in_thread(_remove, fresh)


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
    if target.is_dir():
        swap(fresh, target)
    else:
        fresh.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
