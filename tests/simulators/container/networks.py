"""The commands of `network`: what there is."""

from __future__ import annotations

from simulators.container import listing, xpc
from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def inspect(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`network inspect`."""
    xpc.ask(call, "ping")
    known = _known(call)
    for word in words:
        if word not in known:
            raise Failure("notFound", f"network not found: {word}")
    print(listing.pretty([known[word] for word in words]))


def ls(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`network ls`."""
    xpc.ask(call, "ping")
    known = _known(call)
    if values["format"] == "json":
        print(listing.compact([*known.values()]))
        return
    print("\n".join(known if values["quiet"] else ["NETWORK  SUBNET", *known]))


def _known(call: Call) -> dict[str, dict[str, Any]]:
    names = ["default", *call.mac.knob("networks")]
    return {
        name: {
            "configuration": {
                "creationDate": listing.stamp(0),
                "labels": {},
                "mode": "nat" if name == "default" else "hostOnly",
                "name": name,
                "options": {},
                "plugin": "container-network-vmnet",
            },
            "id": name,
            "status": {
                "ipv4Gateway": f"192.168.{64 + number}.1",
                "ipv4Subnet": f"192.168.{64 + number}.0/24",
                "ipv6Subnet": "fd00::/64",
            },
        }
        for number, name in enumerate(names)
    }
