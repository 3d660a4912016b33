"""What a guest gets of the network: an address, a lease, and `softnet`."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from typing import Any

from simulators.tart import leases
from simulators.tart.arguments import Arguments
from simulators.tart.errors import Failure
from simulators.tart.library import Library
from simulators.tart.settings import Settings


def choose_address(settings: Settings, mac: str) -> str:
    """The address that this MAC has a lease for, or one that nobody uses."""
    known = leases.resolve(settings.leases, mac)
    while True:
        parts = (127, random.randrange(64, 128), random.randrange(256), random.randrange(1, 255))
        address = known or ".".join(str(part) for part in parts)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, settings["port"]))
            except OSError:
                known = None
            else:
                return address


class Lease:
    """The lease of one guest, and how it is faulty."""

    def __init__(
        self, settings: Settings, mac: str, address: str, hit: dict[str, dict[str, Any]]
    ) -> None:
        self._settings = settings
        self._mac = mac
        self._address = address
        self._hit = hit

    def due(self) -> dict[float, str]:
        """What is to be granted, by the seconds until then."""
        delay = self._settings["t_lease"]
        if "no lease" in self._hit or delay is None:
            return {}
        if wrong := self._hit.get("wrong lease"):
            due = {delay: self._wrong(wrong)}
            if "seconds" in wrong:
                due[delay + wrong["seconds"]] = self._address
            return due
        return {delay: self._address}

    def _wrong(self, fault: dict[str, Any]) -> str:
        if other := fault.get("of"):
            mac = Library(self._settings.home).at(other).config()["macAddress"]
            return leases.resolve(self._settings.leases, mac) or ""
        return str(fault["address"])

    def grant(self, address: str) -> None:
        expires = int(time.time()) + self._settings["lease_seconds"]
        lease = leases.Lease(self._mac, address, expires)
        path = self._settings.leases
        if torn := self._hit.pop("torn lease", None):
            with open(path, "a", encoding="utf-8") as file:
                file.write(lease.text()[:40])
                file.flush()
                time.sleep(torn.get("seconds", 0.5))
                file.write(lease.text()[40:])
        else:
            leases.grant(path, lease)

    def neighbour(self, mac: str, address: str) -> None:
        """Be seen by the ARP resolver."""
        path = os.path.join(self._settings.host, "arp", mac)
        with open(path, "w", encoding="utf-8") as file:
            file.write(address)


class Softnet:
    """The process that filters the packets of one guest."""

    def __init__(self, arguments: Arguments, mac: str) -> None:
        """
        Raises:
            Failure: it is not installed.
        """
        path = shutil.which("softnet")
        if path is None:
            raise Failure('InitializationFailed(why: "softnet not found in PATH")', prefix=True)
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [path, "--vm-fd", str(theirs.fileno()), "--vm-mac-address", mac]
        inherited = [theirs.fileno()]
        if arguments.flag("--net-host"):
            argv += ["--vm-net-type", "host"]
        for option in ("allow", "block", "expose"):
            if value := arguments.value(f"--net-softnet-{option}"):
                argv += [f"--{option}", value]
        if control := arguments.number("--net-softnet-control-fd", 0):
            argv += ["--control-fd", str(control)]
            inherited.append(control)
        self.process = subprocess.Popen(argv, pass_fds=inherited)
        theirs.close()


def add_route(settings: Settings, address: str) -> None:
    """Leave an address without a route, as macOS does for who may not see the local network.

    The routes of a world are listed in it, and go with it.
    """
    with open(os.path.join(settings.host, "routes"), "a", encoding="utf-8") as file:
        print(address, file=file)
    change_route("replace", address)


def change_route(verb: str, address: str) -> None:
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "ip"
    argv = [ip, "route", verb, "unreachable", f"{address}/32", "table", "local"]
    subprocess.run(argv, check=True)
