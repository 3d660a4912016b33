"""The world that a call belongs to: `$TART_HOME`, and the JSON file `$FAKE_TART_CONFIG`."""

from __future__ import annotations

import fcntl
import json
import os
from fnmatch import fnmatchcase
from typing import Any

from simulators.tart.journal import Journal

KNOBS: dict[str, Any] = {
    "version": "2.32.1",
    "agent": "v0.11.0",
    "delete_running": 1,
    "macos_limit": 2,
    "port": 22,
    "dies_unread": True,
    "exec_patience": 10.0,
    "lease_seconds": 86400,
    "t_clone": 0.0,
    "t_start": 0.0,
    "t_handlers": 0.05,
    "t_sock": 0.0,
    "t_lease": 0.0,
    "t_agent": 0.0,
    "t_ssh": 0.0,
    "t_stop": 0.0,
    "t_suspend": 0.0,
    "garbage_noise": False,
}
"""Every knob with its value when the configuration does not name it; README.md explains them."""


class Settings:
    """What the configuration says now; it is read anew by every call."""

    def __init__(self, home: str, data: dict[str, Any]) -> None:
        self.home = home
        self.host: str = data["host"]
        self.leases: str = data["leases"]
        self.journal = Journal(data["journal"])
        self.images: dict[str, str] = data.get("images", {})
        self._knobs = KNOBS | data["knobs"]
        self._faults: list[dict[str, Any]] = data["faults"]

    def __getitem__(self, knob: str) -> Any:
        return self._knobs[knob]

    @property
    def version(self) -> tuple[int, ...]:
        """The numbers of the version; a development build is newer than every release."""
        text = self["version"]
        return (999,) if text == "SNAPSHOT" else tuple(int(part) for part in text.split("."))

    def abandoned(self) -> bool:
        """Whether the test that made this world is dead, so that nobody ends it."""
        with open(os.path.join(self.host, "alive"), encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def faults(self, verb: str, name: str = "") -> dict[str, dict[str, Any]]:
        """The faults that hit this call, by kind; asking counts as the call."""
        return {
            fault["kind"]: fault
            for fault in self._faults
            if fault["verb"] == verb and fnmatchcase(name, fault["vm"]) and self._hits(fault)
        }

    def _hits(self, fault: dict[str, Any]) -> bool:
        """Count a call, and say whether it is among those that the fault is meant for."""
        path = os.path.join(self.host, "faults", fault["id"])
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            call = int(os.read(descriptor, 20) or b"0")
            os.pwrite(descriptor, b"%d" % (call + 1), 0)
        finally:
            os.close(descriptor)
        first = int(fault["after"])
        return call >= first and (fault["times"] is None or call < first + int(fault["times"]))


def load() -> Settings:
    """The settings of the calling process.

    Raises:
        SystemExit: the environment does not name a world; the user's own is never touched.
    """
    home, config = os.environ.get("TART_HOME"), os.environ.get("FAKE_TART_CONFIG")
    if not home or not config or os.path.realpath(home) == os.path.expanduser("~/.tart"):
        raise SystemExit("the simulated tart needs TART_HOME (not ~/.tart) and FAKE_TART_CONFIG")
    with open(config, encoding="utf-8") as file:
        return Settings(home, json.load(file))
