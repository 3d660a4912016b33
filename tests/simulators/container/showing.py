"""The commands `ls`, `inspect` and `logs`."""

from __future__ import annotations

import sys

from simulators.container import listing, xpc
from simulators.container.asking import listed
from simulators.container.errors import Failure, no_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def ls(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`ls`: what runs, or everything."""
    found = [one for one in listed(call) if values["all"] or one["state"] == "running"]
    version = call.mac.version
    if values["format"] == "json":
        text = listing.compact(_altered(call, listing.shown(found, version))) + "\n"
    elif values["quiet"]:
        text = "".join(f"{one['configuration']['id']}\n" for one in found)
    else:
        text = listing.table(found, version) + "\n"
    for fault in call.faults("output"):
        if fault["action"] == "truncate":
            text = text[: len(text) // 2]
    sys.stdout.write(text)


def inspect(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`inspect`: everything that is known of containers."""
    names = set(words)
    found = [one for one in listed(call) if one["configuration"]["id"] in names]
    missing = names - {one["configuration"]["id"] for one in found}
    if missing and call.mac.version >= (1, 0):
        raise Failure("notFound", f"container not found: {', '.join(sorted(missing))}")
    print(listing.pretty(_altered(call, listing.shown(found, call.mac.version))))


def logs(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`logs`: what the init process wrote, and the client took."""
    name = words[0]
    try:
        if not any(one["configuration"]["id"] == name for one in xpc.ask(call, "containers")):
            text = f"failed to open container logs: {no_container(name).full()}"
            raise Failure("internalError", text)
    except Failure as error:
        text = f"failed to get logs for container {name}"
        raise Failure("internalError", text, error) from None
    file = call.mac.path("containers", name, "boot.log" if values["boot"] else "log")
    try:
        with open(file, encoding="utf-8") as log:
            lines = log.read().splitlines(keepends=True)
    except FileNotFoundError:
        lines = []
    except UnicodeDecodeError:
        text = "failed to convert container logs to utf8"
        raise Failure("internalError", text) from None
    sys.stdout.write("".join(lines if values["n"] is None else lines[-values["n"] :]))


def _altered(call: Call, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let faults change what is shown: keys and states that nobody knows yet."""
    for fault in call.faults("output"):
        if fault["action"] == "alter":
            for one in objects:
                if fault.get("container") in {None, one.get("id")}:
                    one.update(fault.get("keys", {}))
                    one["status"] = {**one["status"], **fault.get("status", {})}
        elif fault["action"] == "hide":
            objects = [one for one in objects if one.get("id") != fault.get("name")]
    return objects
