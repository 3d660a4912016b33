"""What the server does when containers end, and when it starts itself."""

from __future__ import annotations

import contextlib
import os
import time

from simulators.container.errors import Failure
from simulators.container.helpers import deregister
from simulators.container.mac import Mac
from simulators.container.xpc import runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def wake(mac: Mac) -> None:
    """Load what is on disk if the server has just been started: nothing runs, it believes."""
    with mac.locked("state"):
        if mac.load("state.json") is not None:
            return
        states: dict[str, Any] = {}
        for name in os.listdir(mac.path("containers")):
            options = mac.load("containers", name, "options.json")
            if options is None or options["autoRemove"]:
                discard(mac, name)
            else:
                states[name] = {"state": "stopped"}
        mac.save(states, "state.json")


def watch(mac: Mac, name: str) -> None:
    """Wait for the end of a container, as the server does, and see to what follows."""
    with contextlib.suppress(Failure):  # its helper has died, so it has ended
        runtime(mac, name, {"do": "wait", "process": name})
    time.sleep(mac.knob("exit_seconds"))
    try:
        exited(mac, name)
    except Failure:
        return  # it has been deleted


def exited(mac: Mac, name: str) -> None:
    """See to what follows the end of a container: it is `stopped`, or removed."""
    with mac.locked("server"):
        state = (mac.load("state.json") or {}).get(name)
        if state is None or state["state"] == "stopped":
            return
        deregister(mac, name)
        with mac.changed("state", {}) as states:
            states[name] = {"state": "stopped", "startedDate": state.get("startedDate")}
        if mac.load("containers", name, "options.json")["autoRemove"]:
            clean_up(mac, name)


def clean_up(mac: Mac, name: str) -> None:
    """Remove a container, with the server's lock held."""
    if name not in (mac.load("state.json") or {}):
        return
    discard(mac, name)
    with mac.changed("state", {}) as state:
        state.pop(name, None)


def discard(mac: Mac, name: str) -> None:
    """Remove what there is of a container on disk, and its helper."""
    deregister(mac, name)
    bundle = mac.path("containers", name)
    if os.path.exists(bundle):
        from simulators.container import removal  # only here: it takes long to load

        removal.remove(bundle)
