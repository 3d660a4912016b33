"""Containers of somebody else, which are there from the start and that no test may touch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from simulators.container import configuration, syntax
from simulators.container.arguments import Syntax
from simulators.container.mac import Mac

NAMES = ("buildkit", "somebody-elses", "somebody-elses-old")
"""Containers that are there from the start, and that no test may touch."""


def add(mac: Mac, image: dict[str, Any]) -> None:
    """Put them into a new world; those that run need no processes for it."""
    states: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        bundle = Path(mac.path("containers", name))
        bundle.mkdir()
        mac.save(_configuration(mac, name, image), "containers", name, "config.json")
        options = {"autoRemove": False, "foreign": True, "lower": image["root"]}
        mac.save(options, "containers", name, "options.json")
        states[name] = {"state": "stopped"}
        if not name.endswith("old"):
            states[name] = {"state": "running", "client": True, "startedDate": time.time()}
            mac.save({"pid": 400 + len(states), "foreign": True}, "launchd", name)
    mac.save(states, "state.json")


def _configuration(mac: Mac, name: str, image: dict[str, Any]) -> dict[str, Any]:
    options = (*syntax.PROCESS, *syntax.RESOURCE, *syntax.MANAGEMENT)
    values, _ = Syntax("run", options).parse(["--name", name])
    return configuration.make(mac, name, image, values, ["sleep", "1000"])
