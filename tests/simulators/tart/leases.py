"""The file of the DHCP server, `/var/db/dhcpd_leases` on a Mac."""

from __future__ import annotations

import os
import time

from simulators.tart import locks
from simulators.tart.errors import Failure


class Lease:
    """An address that a MAC was given until a point in time, in seconds."""

    def __init__(self, mac: str, address: str, expires: int) -> None:
        self.mac = mac
        self.address = address
        self.expires = expires

    def text(self) -> str:
        # The server leaves out leading zeros.
        mac = "1," + ":".join(f"{int(part, 16):x}" for part in self.mac.split(":"))
        lines = (
            "name=admins-Virtual-Machine",
            f"ip_address={self.address}",
            f"hw_address={mac}",
            f"identifier={mac}",
            f"lease=0x{self.expires:x}",
        )
        return "{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def read(path: str) -> list[Lease]:
    """Every entry.

    Raises:
        Failure: the file ends within an entry.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    found: list[Lease] = []
    entry: dict[str, str] | None = None
    for line in (line.strip() for line in lines):
        if line == "{":
            entry = {}
        elif line == "}" and entry is not None:
            found.append(_lease(entry))
            entry = None
        elif entry is not None and line:
            key, _, value = line.partition("=")
            entry[key] = value
    if entry is not None:
        raise Failure('Truncated(name: "truncated DHCPD leases file")', prefix=True)
    return found


def _lease(entry: dict[str, str]) -> Lease:
    mac = ":".join(f"{int(part, 16):02x}" for part in entry["hw_address"].split(",")[1].split(":"))
    return Lease(mac, entry["ip_address"], int(entry["lease"], 16))


def resolve(path: str, mac: str) -> str | None:
    """The address of the newest entry of a MAC that has not expired."""
    found = [lease for lease in read(path) if lease.mac == mac and lease.expires > time.time()]
    return max(found, key=lambda lease: lease.expires).address if found else None


def grant(path: str, lease: Lease) -> None:
    """Write an entry in front of all others, in place of the same address for the same MAC."""
    with locks.directory(os.path.dirname(path)):
        others = [one for one in read(path) if (one.mac, one.address) != (lease.mac, lease.address)]
        new = f"{path}.new"
        with open(new, "w", encoding="utf-8") as file:
            file.write("".join(one.text() for one in (lease, *others)))
        os.rename(new, path)
