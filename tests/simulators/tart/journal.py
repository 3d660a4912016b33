"""One line of JSON when a call begins, one when it ends; none of the latter if it was killed."""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Journal:
    """The lines of one call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._call = os.urandom(8).hex()

    def begin(self, argv: list[str]) -> None:
        self.write(
            "begin",
            argv=argv,
            pid=os.getpid(),
            ppid=os.getppid(),
            pgid=os.getpgrp(),
            sid=os.getsid(0),
            env=dict(os.environ),
            cwd=os.getcwd(),
        )

    def end(self, code: int) -> None:
        self.write("end", exit=code)

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; a short append is atomic."""
        line = {"call": self._call, "event": event, "time": time.time(), **fields}
        descriptor = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)
