"""What an installed base image is."""

from __future__ import annotations

import base64
import os
import random

from simulators.tart import disk
from simulators.tart.machine import CONTENT, GIGABYTE, Machine, random_mac


def install(machine: Machine, system: str, gigabytes: int) -> None:
    """Make a machine out of nothing.

    Args:
        system: `darwin` or `linux`.
        gigabytes: the size of its disk.
    """
    os.makedirs(machine.path)
    darwin = system == "darwin"
    config = {
        "version": 1,
        "os": system,
        "arch": "arm64",
        "cpuCountMin": 4 if darwin else 1,
        "cpuCount": 4,
        "memorySizeMin": 4 * 1024**3 if darwin else 512 * 1024**2,
        "memorySize": 8 * 1024**3,
        "macAddress": random_mac(),
        "display": {"width": 1024, "height": 768},
        "diskFormat": "raw",
    }
    if darwin:
        for key in ("ecid", "hardwareModel"):
            config[key] = base64.b64encode(random.randbytes(60)).decode()
    machine.write(config)
    with open(machine.file("nvram.bin"), "wb") as file:
        file.write(bytes(4096))
    disk.make(machine.file(CONTENT), system)
    machine.resize(gigabytes * GIGABYTE)
