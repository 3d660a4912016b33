"""The addresses that containers get while they run."""

from __future__ import annotations

import zlib

from simulators.container.mac import Mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def attachments(mac: Mac, name: str) -> list[dict[str, Any]]:
    """What `status.networks` says of a container that runs."""
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
