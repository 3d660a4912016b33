"""The commands `cp` and `export`."""

from __future__ import annotations

import os
import shutil
import tempfile

from simulators.container import asking, xpc
from simulators.container.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def cp(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`cp`: between a container that runs and the host."""
    source, target = (_reference(word) for word in words)
    if bool(source[0]) == bool(target[0]):
        text = "one of source or destination must be a container reference (container_id:path)"
        raise Failure("invalidArgument", text)
    into = bool(target[0])
    name = target[0] if into else source[0]
    call.container = name
    here = os.path.abspath(source[1] if into else target[1])
    if into and not os.path.exists(here):
        raise Failure("notFound", f"source path does not exist: {source[1]}")
    if not into and os.path.isdir(here):
        here = os.path.join(here, os.path.basename(source[1]))
    request = (
        ("disks.copy_in", name, here, target[1])
        if into
        else ("disks.copy_out", name, source[1], here)
    )
    try:
        print(xpc.ask(call, *request))
    except Failure as error:
        what = f"failed to copy {'into' if into else 'from'} container {name}"
        raise Failure("internalError", what, error) from None


def export(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`export`: the root of a container as a tar archive."""
    version, output = call.mac.version, values["output"]
    if version < (0, 11):
        raise Failure("unsupported", "exporting to an image is not simulated")
    if output and os.path.exists(output) and version < (1, 2, 1):
        raise Failure("exists", f"file already exists: {output}")
    call.container = words[0]
    with tempfile.TemporaryDirectory() as place:
        archive = os.path.join(place, "archive.tar")
        try:
            xpc.ask(call, "disks.export", words[0], archive)
        except Failure as error:
            raise Failure("internalError", "failed to export container", error) from None
        if output:
            shutil.move(archive, output)
            return
        with open(archive, "rb") as file:
            while data := file.read(1 << 12):
                asking.write(1, data)


def _reference(word: str) -> tuple[str, str]:
    """The container and the path of a word; no container for a path of the host."""
    name, colon, path = word.partition(":")
    if ":" in path or (colon and not path.startswith("/")):
        raise Failure("invalidArgument", f"invalid path given: {word}")
    return (name, path) if colon else ("", word)
