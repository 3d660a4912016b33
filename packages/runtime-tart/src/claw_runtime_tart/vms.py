"""Virtual machines on disk: Tart has no daemon, so its directory and its locks are the truth.

A machine is there when its directory has `config.json`, `disk.img` and `nvram.bin`; it runs while a
process has a POSIX lock on `config.json`. A directory with only a part of the files is invisible
to `tart list` and refused by `tart delete`, and occupies its disk all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any, Final

import attrs

FILES: Final = ("config.json", "disk.img", "nvram.bin")
SOCKET: Final = "control.sock"
"""Where the guest agent is reached; a killed `tart run` leaves it behind."""
STATE: Final = "state.vzvmsave"
"""What a suspended machine goes on from."""
_FLOCK: Final = "qqihh" if sys.platform == "darwin" else "hhqqi4x"


@attrs.frozen
class Directory:
    """Where Tart keeps machines and images.

    Args:
        home: `TART_HOME`.
    """

    home: Path

    def path(self, name: str) -> Path:
        """The directory of a local machine."""
        return self.home / "vms" / name

    def image(self, name: str) -> Path | None:
        """The directory of what can be cloned under a name; None where there is nothing yet."""
        if is_remote(name):
            repository, tag = split(name)
            path = self.home / "cache" / "OCIs" / repository / tag
        else:
            path = self.path(name)
        return path if all((path / file).exists() for file in FILES[:1]) else None

    def names(self) -> frozenset[str]:
        """The names of all directories of local machines, half deleted ones included."""
        try:
            return frozenset(path.name for path in (self.home / "vms").iterdir())
        except FileNotFoundError:
            return frozenset()

    def config(self, name: str) -> dict[str, Any]:
        """What is configured of a local machine; nothing where that cannot be read."""
        return config(self.path(name))

    def holder(self, name: str) -> int | None:
        """The process that runs a local machine; see the function."""
        return holder(self.path(name))

    def remove(self, name: str) -> None:
        """Remove what is left of a machine that nobody runs, and Tart does not delete.

        Raises:
            OSError: it cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path(name))


def config(path: Path) -> dict[str, Any]:
    """The `config.json` of a directory; nothing where it cannot be read."""
    try:
        found = json.loads((path / FILES[0]).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holder(path: Path) -> int | None:
    """The process that runs the machine in a directory; None when nobody does.

    It is 0 or negative where the system cannot tell who it is. POSIX locks go when their owner
    closes any descriptor of the file; ours hold nothing.
    """
    try:
        with (path / FILES[0]).open("r+b") as file:
            return _locker(file.fileno())
    except OSError:
        return None


def _locker(descriptor: int) -> int | None:
    """The process that has a write lock on an open file; never this one."""
    if sys.platform == "darwin":
        ask = struct.pack(_FLOCK, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, ask))
        pid, kind = answer[2], answer[3]
    else:
        ask = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, ask))
        pid, kind = answer[4], answer[0]
    return None if kind == fcntl.F_UNLCK else int(pid)


def is_remote(image: str) -> bool:
    """Whether a name is that of an image in a registry, as Tart reads it."""
    return "/" in image


def split(image: str) -> tuple[str, str]:
    """Repository and tag (or digest) of an image in a registry."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "latest")
