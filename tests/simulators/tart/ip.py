"""`tart ip`: the address of a guest, asked for once per second."""

from __future__ import annotations

import os
import time

from simulators.tart import faults, frames, leases
from simulators.tart.arguments import VALUE, parse
from simulators.tart.errors import Failure, Usage
from simulators.tart.exec import connect
from simulators.tart.library import Library
from simulators.tart.machine import Machine
from simulators.tart.settings import Settings


def ip(settings: Settings, argv: list[str]) -> int:
    arguments = parse(argv, {"--wait": VALUE, "--resolver": VALUE}, ["name"])
    wait = arguments.number("--wait", 0)
    resolver = arguments.value("--resolver", "dhcp")
    resolvers = {"dhcp", "arp"} | ({"agent"} if settings.version >= (2, 28) else set())
    if resolver not in resolvers:
        raise Usage(f"The value '{resolver}' is invalid for '--resolver <resolver>'")
    hit = faults.strike(settings, "ip", arguments.names[0])
    faults.fail(hit, "ip")
    if "empty" in hit:
        return 0
    library = Library(settings.home)
    library.collect(noise=settings["garbage_noise"])
    machine = library.find(arguments.names[0])
    config = machine.config()
    deadline = time.monotonic() + wait
    while True:
        if address := _resolve(settings, machine, config["macAddress"], resolver):
            print(address)
            return 0
        time.sleep(1)  # also after the last miss
        if time.monotonic() >= deadline:
            break
    text = "no IP address found"
    if not machine.runner():
        text += ", is your VM running?"
    if resolver == "agent":
        text += " (also make sure that Guest agent for Tart is running inside of a VM)"
    if resolver == "arp" and config["os"] == "linux":
        text += " (not all Linux distributions are compatible with the ARP resolver)"
    raise Failure(text)


def _resolve(settings: Settings, machine: Machine, mac: str, resolver: str) -> str | None:
    if resolver == "dhcp":
        return leases.resolve(settings.leases, mac)
    if not machine.runner():
        return None
    if resolver == "arp":
        path = os.path.join(settings.host, "arp", mac)
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            return file.read()
    try:
        with connect(settings, machine) as connection:
            connection.sendall(frames.pack(frames.ADDRESS))
            return connection.recv(64)[frames.HEAD.size :].decode() or None
    except Failure:
        return None
