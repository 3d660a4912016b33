"""One virtual machine: a directory with Tart's three files, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

from simulators.tart import errors, foundation, locks

FILES = ("config.json", "disk.img", "nvram.bin")
STATE = "state.vzvmsave"
SOCKET = "control.sock"
CONTENT = "disk"
"""What is written on the disk, as a directory: `disk.img` itself is empty and has only a size."""

GIGABYTE = 10**9


def random_mac() -> str:
    """A unicast address that is administered locally."""
    first = random.randrange(256) & 0xFC | 0x02
    return ":".join(f"{part:02x}" for part in (first, *random.randbytes(5)))


class Machine:
    """A directory that may hold a virtual machine."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def exists(self) -> bool:
        """Tart knows a machine if and only if all three files are there."""
        return all(os.path.exists(self.file(name)) for name in FILES)

    def config(self) -> dict[str, Any]:
        """The content of `config.json`.

        Raises:
            Failure: it went away.
        """
        try:
            with open(self.file("config.json"), encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            raise errors.no_file("config.json") from None
        except ValueError:
            text = "The data couldn’t be read because it isn’t in the correct format."
            raise errors.Failure(text, prefix=True) from None

    def write(self, config: dict[str, Any]) -> None:
        """Write `config.json` in place, so that a lock on it stays what it is."""
        with open(self.file("config.json"), "w", encoding="utf-8") as file:
            file.write(foundation.pretty(config))

    def runner(self) -> int:
        """The pid of the `tart run` that holds the lock, or 0."""
        try:
            return locks.holder(self.file("config.json"))
        except FileNotFoundError:
            raise errors.no_file("config.json") from None

    def suspended(self) -> bool:
        return os.path.exists(self.file(STATE))

    def state(self) -> str:
        """`running`, `suspended` or `stopped`."""
        if self.runner():
            return "running"
        return "suspended" if self.suspended() else "stopped"

    def disk_bytes(self) -> int:
        try:
            return os.stat(self.file("disk.img")).st_size
        except FileNotFoundError:
            raise errors.no_file("disk.img") from None

    def used_bytes(self) -> int:
        """The space that the machine takes on the host.

        Raises:
            Failure: it went away.
        """
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # the guest has written its disk
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        self.disk_bytes()
        return total

    def accessed(self) -> float:
        return os.stat(self.file("config.json")).st_atime

    def resize(self, size: int) -> None:
        """Give the disk a size in bytes; its content is elsewhere."""
        with open(self.file("disk.img"), "ab") as file:
            file.truncate(size)
