"""The commands `create`, `run`, `start` and `exec`."""

from __future__ import annotations

import os
import uuid

from simulators.container import configuration as configurations
from simulators.container import images, xpc
from simulators.container.asking import find, get, quietly
from simulators.container.attached import Attached, Drained
from simulators.container.errors import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def create(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`create`: a container that is `stopped`."""
    xpc.ask(call, "ping")
    name = _name(call, values)
    _make(call, name, values, words)
    _write_id(values, name)
    print(name)


def run(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`run`: create, boot, start; attached, its code is the program's."""
    xpc.ask(call, "ping")
    name = _name(call, values)
    if values["progress"] in {None, "auto", "plain"}:
        os.write(2, b"[1/6] Fetching image\n[6/6] Starting container\n")
    if find(call, name) is not None:
        raise Failure("exists", f"container with id {name} already exists")
    _make(call, name, values, words)
    try:
        streams = Attached(call, interactive=values["interactive"], detach=values["detach"])
        xpc.ask(call, "bootstrap", name, descriptors=streams.theirs)
        _write_id(values, name)
        code = streams.start(name, name)
    except (Failure, Drained) as error:
        quietly(call, "delete", name, False)
        if isinstance(error, Drained):
            text = "failed to run container: CancellationError()"
            raise Failure("internalError", text) from None
        raise
    _end(name, code)


def start(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`start`: boot and start a container that was created."""
    name = words[0]
    attach = values["attach"] or values["interactive"]
    found = get(call, name)
    if found["state"] == "running":
        if attach:
            text = "attach is currently unsupported on already running containers"
            raise Failure("invalidArgument", text)
        print(name)
        return
    for mount in found["configuration"]["mounts"]:
        if "virtiofs" in mount["type"] and not os.path.exists(mount["source"]):
            text = f"mount source path '{mount['source']}' does not exist"
            raise Failure("invalidState", text)
    try:
        streams = Attached(call, interactive=values["interactive"], detach=not attach)
        xpc.ask(call, "bootstrap", name, descriptors=streams.theirs)
        code = streams.start(name, name)
    except (Failure, Drained) as error:
        quietly(call, "stop", name, None, 5)
        if isinstance(error, Drained):
            text = "failed to start container CancellationError()"
            raise Failure("internalError", text) from None
        raise
    _end(name, code)


def execute(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`exec`: one more process in a container that runs."""
    name, program, *arguments = words
    found = get(call, name)
    if found["state"] != "running":
        raise Failure("invalidState", f"container {name} is not running")
    init = found["configuration"]["initProcess"]
    process = {
        **init,
        "arguments": arguments,
        # What is there already comes first, and the first one counts.
        "environment": [*init["environment"], *configurations.environment(values)],
        "executable": program,
        "user": configurations.user(values, init["user"]),
        "workingDirectory": values["workdir"] or init["workingDirectory"],
    }
    number = str(uuid.uuid4())
    streams = Attached(call, interactive=values["interactive"], detach=values["detach"])
    xpc.ask(call, "create_process", name, number, process, descriptors=streams.theirs)
    try:
        code = streams.start(name, number)
    except Drained:
        text = "failed to exec process CancellationError()"
        raise Failure("internalError", text) from None
    _end(name, code)


def _name(call: Call, values: dict[str, Any]) -> str:
    name: str = values["name"] or str(uuid.uuid4())
    configurations.check_name(name)
    call.container = name
    return name


def _make(call: Call, name: str, values: dict[str, Any], words: list[str]) -> None:
    reference, *arguments = words
    call.point("before image")
    image = images.fetch(call.mac, reference)
    call.point("after image")
    configuration = configurations.make(call.mac, name, image, values, arguments)
    options = {"autoRemove": values["rm"], "lower": image["root"]}
    xpc.ask(call, "create", configuration, options)


def _end(name: str, code: int | None) -> None:
    """End as a process did; one that was only started leaves its container's name."""
    if code is None:
        print(name)
    else:
        raise Exit(code)


def _write_id(values: dict[str, Any], name: str) -> None:
    if values["cidfile"]:
        with open(values["cidfile"], "w", encoding="utf-8") as file:
            file.write(name)
