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


def read(path: str) -> list[dict[str, Any]]:
    """Every call in the order of their beginnings, with `exit` and `ended` once it is over.

    What else was written during a call are its `notes`.
    """
    calls: dict[str, dict[str, Any]] = {}
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        for entry in map(json.loads, file):
            if entry["event"] == "begin":
                calls[entry["call"]] = entry
            elif entry["event"] == "end":
                calls[entry["call"]] |= {"exit": entry["exit"], "ended": entry["time"]}
            else:
                calls[entry["call"]].setdefault("notes", []).append(entry)
    return list(calls.values())
