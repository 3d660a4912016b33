"""Writes what happens as JSON lines: a listener, ready for use."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core.errors import ConfigError
from claw_core.events import Event
from claw_core.tasks import in_thread

DRAIN: Final = 5.0
"""Seconds for which `close` waits for a disk that does not take the rest."""


class EventLog:
    """Appends every event to a file, from a thread of its own: a slow disk slows down no run.

    A line is one object: `time` in seconds since 1970, `event` its kind, and its fields. Losing the
    disk loses lines, never the run; `close` tells.

    Args:
        path: the file; made with mode 0600 where it does not exist.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        # Where an agent writes, a symlink could lead the lines anywhere; a fifo could hold us up.
        flags = (
            os.O_NONBLOCK | os.O_NOFOLLOW | os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        )
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot write events to {str(path)!r}: {error.strerror}",
                remedy="name a file in a directory of yours",
            ) from error
        os.set_blocking(self._descriptor, True)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._error: OSError | None = None
        # A daemon: a disk that never comes back must not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="claw-events", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event; never waits."""
        self._lines.put(encoded(event, time.time()))

    async def close(self) -> str | None:
        """Return when everything is written, or say what kept it from being written."""
        self._lines.put(None)
        await in_thread(self._thread.join, DRAIN)
        if self._thread.is_alive():
            return f"not all events were written within {DRAIN:g} s"
        if self._error is not None:
            return f"not all events were written: {self._error.strerror}"
        return None

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError as error:
                self._error = self._error or error
        os.close(self._descriptor)


def encoded(event: Event, now: float) -> bytes:
    """One line of the log."""
    fields: dict[str, Any] = {"time": round(now, 3), "event": type(event).__name__}
    fields |= attrs.asdict(event)
    return json.dumps(fields, separators=(",", ":"), default=str).encode() + b"\n"
