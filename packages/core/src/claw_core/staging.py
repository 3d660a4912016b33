"""Private directories beside what is to come: gone afterwards, also those of the dead.

The lock of such a directory says that somebody is at work in it. Whoever makes the next one beside
it removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Final

from claw_core import locks
from claw_core.archive import DIRECTORY

_NAME: Final = re.compile(r"\.claw-[0-9a-f]{16}\.partial")


class Stage:
    """One private directory; all of it blocks.

    Args:
        parent: where it is to be.

    Attributes:
        path: where it is.
        parent: a descriptor of its parent; -1 unless it is open.
        descriptor: its own; -1 unless it is open.
    """

    def __init__(self, parent: Path) -> None:
        self.path = _fresh(parent)
        self.parent = self.descriptor = -1

    def open(self) -> None:
        """Make it, and remove what the dead have left; call `close` afterwards, whatever happens.

        Raises:
            OSError: it cannot be made.
        """
        self.parent = os.open(self.path.parent, DIRECTORY & ~os.O_NOFOLLOW)
        self._sweep()
        while not self._made():  # a sweep has come between
            self.path = _fresh(self.path.parent)

    def close(self) -> None:
        """Remove it with all that is in it; may be called at any time, and again."""
        if self.parent >= 0:
            with contextlib.suppress(FileNotFoundError):
                try:
                    shutil.rmtree(self.path.name, dir_fd=self.parent)
                except PermissionError:
                    _open_up(self.path)
                    shutil.rmtree(self.path.name, dir_fd=self.parent)
        for descriptor in (self.descriptor, self.parent):
            if descriptor >= 0:
                os.close(descriptor)
        self.parent = self.descriptor = -1

    def _made(self) -> bool:
        os.mkdir(self.path.name, 0o700, dir_fd=self.parent)
        try:
            self.descriptor = os.open(self.path.name, DIRECTORY, dir_fd=self.parent)
        except FileNotFoundError:
            return False
        if locks.take(self.descriptor) and os.fstat(self.descriptor).st_nlink:
            return True
        os.close(self.descriptor)
        self.descriptor = -1
        return False

    def _sweep(self) -> None:
        for name in os.listdir(self.parent):  # noqa: PTH208 - a descriptor
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError):  # somebody else's, or gone
                    found = os.open(name, DIRECTORY, dir_fd=self.parent)
                    try:
                        if locks.take(found):
                            shutil.rmtree(name, dir_fd=self.parent)
                    finally:
                        os.close(found)


def _open_up(path: Path) -> None:
    """Let the owner of a tree remove it."""
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = Path(folder, name)
            if not inner.is_symlink():
                inner.chmod(0o700)


def _fresh(parent: Path) -> Path:
    return parent / f".claw-{secrets.token_hex(8)}.partial"
