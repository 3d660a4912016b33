"""A terminal with `claw` in it, and somebody who reads and types."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from cli.support import CLAW


class Console:
    """A real terminal that controls the session of one process.

    Args:
        argv: what runs in it; by default `claw` and its arguments.
        env: variables on top of this process's.
    """

    def __init__(
        self, *args: str, argv: tuple[str, ...] = CLAW, env: Mapping[str, str] | None = None
    ) -> None:
        self.said = bytearray()
        self._ours, self._theirs = os.openpty()
        self.resize(33, 101)
        self.before = self.attributes()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv, *args],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**os.environ, "TERM": "dumb", **(env or {})},
        )

    def attributes(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as a window does."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Type some keys."""
        os.write(self._ours, keys)

    def sees(self, text: bytes, count: int = 1, seconds: float = 30) -> None:
        """Read until the text has been seen so often."""
        end = time.monotonic() + seconds
        while self.said.count(text) < count:
            assert self._read(end - time.monotonic()), f"no {text!r} in {bytes(self.said)!r}"

    def ends(self, seconds: float = 30) -> int:
        """Wait for the end of the process, read what is left, and return its code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {bytes(self.said)!r}"
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, seconds))
        if ready:
            self.said += os.read(self._ours, 65536)
        return bool(ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)
