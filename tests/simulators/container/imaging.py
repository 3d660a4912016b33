"""The commands of `image`."""

from __future__ import annotations

import os
import shutil
import tempfile

from simulators.container import asking, images, layout, listing, xpc
from simulators.container.errors import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from simulators.container.call import Call


def inspect(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`image inspect`."""
    xpc.ask(call, "ping")
    print(listing.compact([images.shown(images.known(call.mac, word)) for word in words]))


def ls(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`image ls`."""
    xpc.ask(call, "ping")
    found = (call.mac.load("images.json") or {}).values()
    if values["format"] == "json":
        print(listing.compact([images.shown(image) for image in found]))
        return
    rows = [image["name"].rpartition("/")[2].rpartition(":") for image in found]
    lines = [f"{name}:{tag}" if values["quiet"] else f"{name}  {tag}" for name, _, tag in rows]
    print("\n".join(lines if values["quiet"] else ["NAME  TAG  DIGEST", *lines]))


def pull(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`image pull`, which prints nothing."""
    xpc.ask(call, "ping")
    images.pull(call.mac, words[0])


def delete(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`image delete`."""
    xpc.ask(call, "ping")
    if values["all"]:
        call.mac.violated("image delete --all")
    for word in words:
        print(images.remove(call.mac, word))


def tag(call: Call, _: dict[str, Any], words: list[str]) -> None:
    """`image tag`."""
    xpc.ask(call, "ping")
    images.tag(call.mac, *words)


def load(call: Call, values: dict[str, Any], _: list[str]) -> None:
    """`image load`: from a file, or from standard input."""
    xpc.ask(call, "ping")
    with tempfile.TemporaryDirectory() as place:
        archive = values["input"] or os.path.join(place, "archive.tar")
        if not values["input"]:
            with open(archive, "wb") as file, open(0, "rb", closefd=False) as stdin:
                shutil.copyfileobj(stdin, file)
        if not os.path.exists(archive):
            print(f"File does not exist {archive}")
            raise Exit(1)
        call.point("before load")
        for name in layout.load(call.mac, archive):
            print(name)
        call.point("after load")


def save(call: Call, values: dict[str, Any], words: list[str]) -> None:
    """`image save`: to a file, or to standard output."""
    xpc.ask(call, "ping")
    with tempfile.TemporaryDirectory() as place:
        archive = os.path.join(place, "archive.tar")
        layout.save(call.mac, words, archive)
        if values["output"]:
            shutil.move(archive, values["output"])
            print("\n".join(words))
            return
        with open(archive, "rb") as file:
            while data := file.read(1 << 16):
                asking.write(1, data)
