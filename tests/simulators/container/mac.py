"""The simulated machine: all that it knows is below one directory, so any process can be it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

KNOBS: dict[str, Any] = {
    "version": "1.2.2",
    "server": "running",
    "domain": f"gui/{os.getuid()}",
    "boot_seconds": 0.0,
    "create_seconds": 0.0,
    "exit_seconds": 0.02,
    "drain_seconds": 3.0,
    "delete_seconds": 0.0,
    "pull_seconds": 0.0,
    "online": False,
    "kernel": True,
    "addresses_after": 0,
    "networks": [],
    "timeout_seconds": 10.0,
    "start_seconds": 0.0,
}
"""Every knob and its default; the README says what each does."""


class Mac:
    """A machine on which `container` is installed.

    Args:
        root: the directory of everything that it knows.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, *parts: str) -> str:
        """A path below its root."""
        return os.path.join(self.root, *parts)

    def knob(self, name: str) -> Any:
        """A knob as it is now."""
        return (self.load("config.json") or {}).get(name, KNOBS[name])

    @property
    def version(self) -> tuple[int, ...]:
        """The version that it plays."""
        return tuple(int(part) for part in self.knob("version").split("."))

    def load(self, *parts: str) -> Any:
        """What a JSON file holds; None where there is none."""
        try:
            with open(self.path(*parts), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def save(self, value: Any, *parts: str) -> None:
        """Replace a JSON file at once."""
        place, name = os.path.split(self.path(*parts))
        with open(f"{place}/.{name}.{os.getpid()}", "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(file.name, f"{place}/{name}")

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock; the kernel lets go of it when the process dies."""
        descriptor = os.open(self.path(f"{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def changed(self, name: str, default: Any) -> Iterator[Any]:
        """Read a JSON file, let it be changed, and write it, as one step."""
        with self.locked(name):
            value = self.load(f"{name}.json")
            value = default if value is None else value
            before = json.dumps(value)
            yield value
            if json.dumps(value) != before:
                self.save(value, f"{name}.json")

    def note(self, record: dict[str, Any], name: str = "journal") -> None:
        """Add a line to a journal."""
        line = json.dumps({**record, "time": time.time()}) + "\n"
        descriptor = os.open(self.path(f"{name}.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def violated(self, what: str) -> None:
        """Remember what no backend should ever do."""
        self.note({"what": what}, "violations")

    def lifeline(self) -> int:
        """A descriptor that hangs up when the world ends."""
        return os.open(self.path("lifeline"), os.O_RDONLY | os.O_NONBLOCK)

    def helpers(self) -> dict[str, dict[str, Any]]:
        """What launchd looks after: the helper of each container by its name."""
        names = [name for name in os.listdir(self.path("launchd")) if not name.startswith(".")]
        found = {name: self.load("launchd", name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def started(pid: int) -> int | None:
    """When a process was started, in ticks since boot; None when it has ended.

    One that has no memory any more has ended, too: the last process of a pid namespace stays until
    somebody has reaped all others.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if state in b"ZX" or fields[19] == b"0" else int(fields[18])


def alive(helper: dict[str, Any] | None) -> bool:
    """Whether the process of a helper is there."""
    if not helper:
        return False
    now = started(helper["pid"]) if "foreign" not in helper else None
    return "foreign" in helper or (now is not None and now == helper["started"])
