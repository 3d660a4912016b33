"""The commands `create`, `run`, `start`, `exec`, `stop`, `kill` and `delete`."""

from __future__ import annotations

import os
import random
import uuid

from simulators.container import configuration as configurations
from simulators.container import images, xpc
from simulators.container.attached import Attached, Drained
from simulators.container.errors import INTERRUPTED, INVALID, Exit, Failure
from simulators.container.server import number_of

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
    if _find(call, name) is not None:
        raise Failure("exists", f"container with id {name} already exists")
    _make(call, name, values, words)
    try:
        streams = Attached(call, interactive=values["interactive"], detach=values["detach"])
        xpc.ask(call, "bootstrap", name, descriptors=streams.theirs)
        _write_id(values, name)
        xpc.ask(call, "start", name, name)
        streams.close_theirs()
        if values["detach"]:
            print(name)
            return
        code = streams.follow(name, name)
    except (Failure, Drained) as error:
        _delete_quietly(call, name)
        if isinstance(error, Drained):
            text = "failed to run container: CancellationError()"
            raise Failure("internalError", text) from None
        raise
    raise Exit(code)


def start(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`start`: boot and start a container that was created."""
    name = words[0]
    attach = values["attach"] or values["interactive"]
    found = _get(call, name)
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
        xpc.ask(call, "start", name, name)
        streams.close_theirs()
        if not attach:
            print(name)
            return
        code = streams.follow(name, name)
    except (Failure, Drained) as error:
        _stop_quietly(call, name)
        if isinstance(error, Drained):
            text = "failed to start container CancellationError()"
            raise Failure("internalError", text) from None
        raise
    raise Exit(code)


def execute(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`exec`: one more process in a container that runs."""
    name, program, *arguments = words
    found = _get(call, name)
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
    xpc.ask(call, "start", name, number)
    streams.close_theirs()
    if values["detach"]:
        print(name)
        return
    try:
        code = streams.follow(name, number)
    except Drained:
        text = "failed to exec process CancellationError()"
        raise Failure("internalError", text) from None
    raise Exit(code)


def stop(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`stop`: a signal, and after some seconds the end."""
    number = number_of(values["signal"]) if values["signal"] else None
    seconds = 5 if values["time"] is None else values["time"]
    _each(call, "stop", values, words, number, seconds)


def kill(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`kill`: a signal to the init process."""
    number = number_of(values["signal"] or "KILL")
    names = _names(call, "kill", values, words)
    _do(call, "kill", [(name, ("signal_process", name, name, number)) for name in names])


def delete(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`delete`: by force what runs, too."""
    _each(call, "delete", values, words, values["force"])


def _each(call: Call, verb: str, values: dict[str, Any], words: list[str], *arguments: Any) -> None:
    names = _names(call, verb, values, words)
    _do(call, verb, [(name, (verb, name, *arguments)) for name in names])


def _names(call: Call, verb: str, values: dict[str, Any], words: list[str]) -> list[str]:
    if not words and not values["all"]:
        raise Failure("invalidArgument", "no containers specified and --all not supplied")
    if words and values["all"]:
        text = "explicitly supplied container IDs conflict with the --all flag"
        raise Failure("invalidArgument", text)
    if values["all"]:
        call.mac.violated(f"{verb} --all")
        running = [one for one in xpc.ask(call, "containers") if one["state"] == "running"]
        words = [one["configuration"]["id"] for one in running]
    names = list(dict.fromkeys(words))
    random.shuffle(names)
    return names


def _do(call: Call, verb: str, requests: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Make a request for each container, and report all that fail at the end."""
    failed = []
    for name, (request, *arguments) in requests:
        call.container = name
        try:
            xpc.ask(call, request, *arguments)
        except Failure as error:
            text = f"failed to {verb} container"
            failed.append(Failure("internalError", text, error, coded=True))
        else:
            print(name)
    if failed:
        raise Failure("internalError", "\n".join(str(one) for one in failed))


def _get(call: Call, name: str) -> dict[str, Any]:
    call.container = name
    found = _find(call, name)
    if found is None:
        raise Failure("notFound", f"get failed: container {name} not found")
    return found


def _find(call: Call, name: str) -> dict[str, Any] | None:
    found = listed(call)
    return next((one for one in found if one["configuration"]["id"] == name), None)


def listed(call: Call) -> list[dict[str, Any]]:
    """All containers, as the server believes them to be."""
    try:
        found: list[dict[str, Any]] = xpc.ask(call, "containers")
    except Failure as error:
        if error.message in {INVALID, INTERRUPTED}:
            text = "failed to list containers"
            raise Failure("internalError", text, error, coded=True) from None
        raise
    return found


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


def _write_id(values: dict[str, Any], name: str) -> None:
    if values["cidfile"]:
        with open(values["cidfile"], "w", encoding="utf-8") as file:
            file.write(name)


def _delete_quietly(call: Call, name: str) -> None:
    try:
        xpc.ask(call, "delete", name, False)
    except Failure:
        return  # it is running, or gone


def _stop_quietly(call: Call, name: str) -> None:
    try:
        xpc.ask(call, "stop", name, None, 5)
    except Failure:
        return
