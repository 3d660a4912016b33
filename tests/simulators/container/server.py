"""What the server does for its clients, each function in a process of its own."""

from __future__ import annotations

import os
import signal
import time

from simulators.container import endings, helpers
from simulators.container.addresses import attachments
from simulators.container.configuration import MINIMUM_MEMORY
from simulators.container.errors import Failure, no_container
from simulators.container.mac import Mac, alive
from simulators.container.signals import number_of
from simulators.container.xpc import runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Then:
    """An answer, and what the server does after it."""

    def __init__(self, value: Any, work: Callable[[], None]) -> None:
        self.value, self.work = value, work


def ping(_: Mac) -> None:
    """Say that it is there."""


def containers(mac: Mac) -> list[dict[str, Any]]:
    """Every container as the server believes it to be."""
    found = []
    for name, state in (mac.load("state.json") or {}).items():
        configuration = mac.load("containers", name, "config.json")
        if configuration is not None:
            found.append({**state, "configuration": configuration})
    if mac.knob("addresses_after"):
        with mac.changed("config", {}) as config:
            config["addresses_after"] -= 1
        return [{**one, "networks": []} for one in found]
    return found


def create(mac: Mac, configuration: dict[str, Any], options: dict[str, Any]) -> None:
    """Make a container that is `stopped`."""
    name = configuration["id"]
    with mac.locked("server"):
        time.sleep(mac.knob("create_seconds"))
        existing = containers(mac)
        if any(one["configuration"]["id"] == name for one in existing):
            raise Failure("exists", f"container already exists: {name}")
        hosts = {
            net["options"]["hostname"]
            for one in existing
            for net in one["configuration"]["networks"]
        }
        taken = [one["options"]["hostname"] for one in configuration["networks"]]
        if taken := [host for host in taken if host in hosts]:
            names = ", ".join(f'"{host}"' for host in taken)
            raise Failure("exists", f"hostname(s) already exist: [{names}]")
        memory = configuration["resources"]["memoryInBytes"]
        if memory < MINIMUM_MEMORY:
            text = f"minimum memory amount allowed is 200 MiB (got {memory} bytes)"
            raise Failure("invalidArgument", text)
        endings.discard(mac, name)
        os.makedirs(mac.path("containers", name))
        mac.save(configuration, "containers", name, "config.json")
        mac.save(options, "containers", name, "options.json")
        with mac.changed("state", {}) as state:
            state[name] = {"state": "stopped"}


def bootstrap(mac: Mac, name: str, descriptors: tuple[int | None, ...]) -> Then | None:
    """Boot a container's machine; its init process does not run yet, and it stays `stopped`."""
    with mac.locked("server"):
        if _state(mac, name).get("client"):
            return None
        helper = mac.helpers().get(name)
        try:
            if not alive(helper):
                helpers.register(mac, name)
            time.sleep(mac.knob("boot_seconds"))
            runtime(mac, name, {"do": "bootstrap"}, descriptors)
        except Failure:
            helpers.deregister(mac, name)
            raise
        with mac.changed("state", {}) as state:
            state[name]["client"] = True
    return Then(None, lambda: endings.watch(mac, name))


def create_process(
    mac: Mac, name: str, process: str, configuration: dict[str, Any], descriptors: tuple[Any, ...]
) -> None:
    """Tell a running container of a process that it shall start."""
    _client(mac, name)
    request = {"do": "create", "process": process, "configuration": configuration}
    try:
        runtime(mac, name, request, descriptors)
    except Failure as error:
        if error.code == "interrupted":
            raise
        text = "failed to create process in container"
        raise Failure("internalError", text, error) from None


def start(mac: Mac, name: str, process: str) -> None:
    """Start a process; one whose name is the container's own is its init process."""
    with mac.locked("server"):
        if process == name and _state(mac, name)["state"] == "running":
            return
        _client(mac, name)
        time.sleep(mac.knob("start_seconds"))
        pid = runtime(mac, name, {"do": "start", "process": process})
        if process == name:
            with mac.changed("state", {}) as state:
                state[name].update(state="running", startedDate=time.time(), pid=pid)
                state[name]["networks"] = attachments(mac, name)


def wait(mac: Mac, name: str, process: str) -> int:
    """Return the exit code of a process when it has ended."""
    _client(mac, name)
    return int(runtime(mac, name, {"do": "wait", "process": process}))


def signal_process(mac: Mac, name: str, process: str, number: int) -> None:
    """Send a signal to a process."""
    _watched(mac, name, "kill")
    _client(mac, name)
    if not _foreign(mac, name):
        runtime(mac, name, {"do": "kill", "process": process, "signal": number})
    if process == name and number == signal.SIGKILL and mac.version >= (1, 0):
        endings.exited(mac, name)


def stop(mac: Mac, name: str, number: int | None, seconds: int) -> None:
    """Stop a container; it is no error if it is `stopped`."""
    _watched(mac, name, "stop")
    if not _state(mac, name).get("client"):
        return
    if not _foreign(mac, name):
        wanted = mac.load("containers", name, "config.json").get("stopSignal")
        number = number or (number_of(wanted) if wanted else signal.SIGTERM)
        try:
            runtime(mac, name, {"do": "stop", "signal": number, "seconds": seconds})
        except Failure as error:
            if error.code != "interrupted":
                raise
    endings.exited(mac, name)


def delete(mac: Mac, name: str, force: bool) -> None:
    """Delete a container; only by force if it is running."""
    _watched(mac, name, "delete")
    if _state(mac, name)["state"] == "running":
        if not force:
            text = f"container {name} is running and can not be deleted"
            raise Failure("invalidState", text)
        if not _foreign(mac, name):
            runtime(mac, name, {"do": "stop", "signal": signal.SIGKILL, "seconds": 5})
    with mac.locked("server"):
        time.sleep(mac.knob("delete_seconds"))
        endings.clean_up(mac, name)


def _state(mac: Mac, name: str) -> dict[str, Any]:
    state: dict[str, Any] | None = (mac.load("state.json") or {}).get(name)
    if state is None:
        raise no_container(name)
    return state


def _client(mac: Mac, name: str) -> None:
    if not _state(mac, name).get("client"):
        raise Failure("invalidState", "no runtime client exists: container is stopped")


def _foreign(mac: Mac, name: str) -> bool:
    return bool(mac.load("containers", name, "options.json").get("foreign"))


def _watched(mac: Mac, name: str, what: str) -> None:
    _state(mac, name)
    if _foreign(mac, name):
        mac.violated(f"{what} of {name}, which is somebody else's")
