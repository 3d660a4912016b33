"""What the server does for its clients, each function in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
import zlib

from simulators.container import events
from simulators.container.configuration import MINIMUM_MEMORY
from simulators.container.errors import Failure, no_container
from simulators.container.mac import Mac, alive, started
from simulators.container.xpc import runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Then:
    """An answer, and what the server does after it."""

    def __init__(self, value: Any, work: Callable[[], None]) -> None:
        self.value, self.work = value, work


def wake(mac: Mac) -> None:
    """Load what is on disk if the server has just been started: nothing runs, it believes."""
    with mac.locked("state"):
        if mac.load("state.json") is not None:
            return
        states: dict[str, Any] = {}
        for name in os.listdir(mac.path("containers")):
            options = mac.load("containers", name, "options.json")
            if options is None or options["autoRemove"]:
                _discard(mac, name)
            else:
                states[name] = {"state": "stopped"}
        mac.save(states, "state.json")


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
        shutil.rmtree(mac.path("containers", name), ignore_errors=True)
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
                _register(mac, name)
            time.sleep(mac.knob("boot_seconds"))
            runtime(mac, name, {"do": "bootstrap"}, descriptors)
        except Failure:
            _deregister(mac, name)
            raise
        with mac.changed("state", {}) as state:
            state[name]["client"] = True
    return Then(None, lambda: _watch(mac, name))


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
        pid = runtime(mac, name, {"do": "start", "process": process})
        if process == name:
            with mac.changed("state", {}) as state:
                state[name].update(state="running", startedDate=time.time(), pid=pid)
                state[name]["networks"] = _attachments(mac, name)


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
        _exited(mac, name)


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
    _exited(mac, name)


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
        _clean_up(mac, name)


def number_of(name: str) -> int:
    """The number of a signal that is given by number or by name."""
    if name.isdigit():
        return int(name)
    upper = name.upper()
    try:
        return int(signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"])
    except KeyError:
        raise Failure("invalidArgument", f"invalid signal: {name}") from None


def _attachments(mac: Mac, name: str) -> list[dict[str, Any]]:
    found = []
    for net in mac.load("containers", name, "config.json")["networks"]:
        digest = zlib.crc32(name.encode())
        found.append(
            {
                "hostname": name,
                "ipv4Address": f"192.168.64.{2 + digest % 250}/24",
                "ipv4Gateway": "192.168.64.1",
                "macAddress": "f2:" + digest.to_bytes(5, "big").hex(":"),
                "mtu": 1280,
                "network": net["network"],
                "variant": "reserved",
            }
        )
    return found


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


def _register(mac: Mac, name: str) -> None:
    """Start a container's helper, as launchd would."""
    bundle = mac.path("containers", name)
    place = os.open(bundle, os.O_PATH)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"/proc/self/fd/{place}/helper.socket"
    if os.path.lexists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen(128)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(f"{bundle}/boot.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(listener.fileno(), 3)
        program = mac.path("bin", "container-runtime-linux")
        argv = [sys.executable, "-IS", program, "start", "--root", bundle, "--uuid", name]
        os.execve(sys.executable, argv, {})
    listener.close()
    os.close(place)
    mac.save({"pid": pid, "started": started(pid)}, "launchd", name)


def _deregister(mac: Mac, name: str) -> None:
    events.kill_helper(mac, name)
    events.remove(mac.path("launchd", name))


def _watch(mac: Mac, name: str) -> None:
    """Wait for the end of a container, as the server does, and see to what follows."""
    with contextlib.suppress(Failure):  # its helper has died, so it has ended
        runtime(mac, name, {"do": "wait", "process": name})
    time.sleep(mac.knob("exit_seconds"))
    try:
        _exited(mac, name)
    except Failure:
        return  # it has been deleted


def _exited(mac: Mac, name: str) -> None:
    with mac.locked("server"):
        state = (mac.load("state.json") or {}).get(name)
        if state is None or state["state"] == "stopped":
            return
        _deregister(mac, name)
        with mac.changed("state", {}) as states:
            states[name] = {"state": "stopped", "startedDate": state.get("startedDate")}
        if mac.load("containers", name, "options.json")["autoRemove"]:
            _clean_up(mac, name)


def _clean_up(mac: Mac, name: str) -> None:
    if name not in (mac.load("state.json") or {}):
        return
    _discard(mac, name)
    with mac.changed("state", {}) as state:
        state.pop(name, None)


def _discard(mac: Mac, name: str) -> None:
    _deregister(mac, name)
    shutil.rmtree(mac.path("containers", name), ignore_errors=True)
