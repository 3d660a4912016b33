"""How containers are shown: JSON of both eras, tables."""

from __future__ import annotations

import json
import time

from simulators.container.chance import shuffled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REFERENCE = 978307200.0
"""Seconds from 1970 to 2001, where Apple's clocks begin."""
_HEADER = "ID IMAGE OS ARCH STATE IP CPUS MEMORY STARTED"


def shown(containers: list[dict[str, Any]], version: tuple[int, ...]) -> list[dict[str, Any]]:
    """The objects of `ls` and `inspect`, in the random order of a dictionary."""
    return shuffled(_object(one, version) for one in containers)


def compact(value: Any) -> str:
    """JSON on one line, as the encoder writes it: sorted keys, escaped slashes."""
    return _escaped(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def pretty(value: Any) -> str:
    """JSON for people."""
    text = json.dumps(value, sort_keys=True, indent=2, separators=(",", " : "), ensure_ascii=False)
    return _escaped(text)


def table(containers: list[dict[str, Any]], version: tuple[int, ...]) -> str:
    """The table of `ls`."""
    header = _HEADER if version >= (1, 0) else _HEADER.replace(" IP ", " ADDR ")
    rows = [header.split()]
    for one in containers:
        configuration = one["configuration"]
        platform, resources = configuration["platform"], configuration["resources"]
        rows.append(
            [
                configuration["id"],
                configuration["image"]["reference"],
                platform["os"],
                platform["architecture"],
                one["state"],
                ",".join(net["ipv4Address"] for net in one.get("networks", ())),
                str(resources["cpus"]),
                f"{resources['memoryInBytes'] >> 20} MB",
                stamp(one["startedDate"]) if one.get("startedDate") else "",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def stamp(seconds: float) -> str:
    """A date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _object(one: dict[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
    configuration, networks = dict(one["configuration"]), one.get("networks", [])
    begun = one.get("startedDate")
    if version < (1, 0):
        del configuration["creationDate"]
        old: dict[str, Any] = {
            "configuration": configuration,
            "networks": networks,
            "status": one["state"],
        }
        return {**old, "startedDate": begun - _REFERENCE} if begun else old
    configuration["creationDate"] = stamp(configuration["creationDate"])
    status: dict[str, Any] = {"networks": networks, "state": one["state"]}
    if begun:
        status["startedDate"] = stamp(begun)
    return {"configuration": configuration, "id": configuration["id"], "status": status}


def _escaped(text: str) -> str:
    return text.replace("/", "\\/")
