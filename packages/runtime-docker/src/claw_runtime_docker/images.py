"""Images: whether one is there or can be had, pulling it, and making one of a container."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, Final

from claw_core.errors import RuntimeFault
from claw_core.model import Audit, Refusal, Snapshot, SnapshotTarget, instance_name
from claw_runtime_docker.container import INSTALL_LABEL
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import CONFLICT, NOT_FOUND, EngineBroken, EngineError

PULL_TIMEOUT: Final = 540.0
"""Seconds that a pull may take."""
ASK_TIMEOUT: Final = 10.0
"""Seconds that a registry has to say whether it has an image."""
COMMIT_TIMEOUT: Final = 600.0
"""Seconds that a snapshot may take."""
AGENT: Final = "claw-agent"
"""The image that `claw image prepare` makes, and of instances for which none is named."""
AUDITS: Final = "claw-audit"
"""Repository of images that are kept for inspection."""
_DELETED: Final = 2
"""The kind of a change: the path is not there any more."""
_AUDIT: Final = re.compile(
    rf"(?:(?:localhost|docker\.io/library)/)?({AUDITS}:.+-([0-9a-f]{{8}})-([0-9a-f]{{12}}))"
)
"""The name of one: it tells which install has made it of which instance. (Labels are inherited by
what is made of it, and Podman up to 4.8 takes none:
https://github.com/containers/podman/issues/13770)"""


async def find(engine: Engine, image: str) -> Any:
    """Return what the engine says of an image; None where it does not have it."""
    try:
        return await engine.call("GET", f"/images/{image}/json")
    except EngineError as error:
        if error.status == NOT_FOUND:
            return None
        raise


async def present(engine: Engine, image: str) -> bool:
    """Whether the engine has the image."""
    return await find(engine, image) is not None


async def obtainable(engine: Engine, image: str, *, pull: bool) -> Refusal | None:
    """Say why an image is neither there nor can be pulled."""
    if await present(engine, image):
        return None
    if image == AGENT:
        return Refusal(
            f"no image is named, and there is no {AGENT}",
            "name one with --image, or make it: claw image prepare docker",
        )
    remedy = f"docker pull {image}, or name another one with --image"
    if not pull:
        return Refusal(f"the engine has no image {image}, and pulling is switched off", remedy)
    if engine.podman:
        return None  # it cannot ask a registry without pulling
    try:
        await engine.call("GET", f"/distribution/{image}/json", timeout=ASK_TIMEOUT)
    except (EngineError, EngineBroken) as error:
        said = error.said if isinstance(error, EngineError) else error.message
        return Refusal(f"the engine has no image {image}, and it cannot be pulled: {said}", remedy)
    return None


async def pull(engine: Engine, image: str, progress: Callable[[str], None]) -> None:
    """Pull an image.

    Raises:
        RuntimeFault: it cannot be pulled.
    """
    name, tag = split(image)
    query = {"fromImage": name, "tag": tag}
    remedy = f"docker pull {image} says more; images that need a login are pulled by hand"
    pending = b""
    try:
        async with engine.stream("POST", "/images/create", query, timeout=PULL_TIMEOUT) as answer:
            while data := await answer.read():
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    _report(line, image, progress, remedy)
    except EngineError as error:
        raise RuntimeFault(f"cannot pull {image}: {error.said}", remedy=remedy) from error
    _report(pending, image, progress, remedy)


async def commit(engine: Engine, instance: str, image: str, target: SnapshotTarget) -> str:
    """Make an image of an instance that starts as the one that it came from, and return its name.

    What lies in memory is not in it: `/run` with the secrets, `/tmp`, the home directory.
    """
    if isinstance(target, Audit):
        name, tag = AUDITS, f"{target.slug}-{instance.removeprefix('claw-')}"
    else:
        name, tag = split(target.name)
    config = (await engine.call("GET", f"/images/{image}/json"))["Config"]
    body = {
        # What is empty here the engine would take from the container.
        "Entrypoint": config.get("Entrypoint") or [],
        "Cmd": config.get("Cmd") or ["sh"],
        "User": config.get("User") or "0",
        "WorkingDir": config.get("WorkingDir") or "/",
        "Env": config.get("Env") or [],
        "Labels": {**(config.get("Labels") or {}), INSTALL_LABEL: ""},
    }
    query = {"container": instance, "repo": name, "tag": tag, "comment": f"snapshot of {instance}"}
    replaced = await find(engine, f"{name}:{tag}")
    await engine.call("POST", "/commit", query, body, timeout=COMMIT_TIMEOUT)
    if replaced is not None:
        await _remove_unnamed(engine, replaced["Id"])
    return f"{name}:{tag}"


async def audits(engine: Engine, install: str) -> frozenset[Snapshot]:
    """The engine's own listing of an install's images for inspection."""
    found = await engine.call("GET", "/images/json")
    if not isinstance(found, list):
        raise EngineBroken(f"the engine at {engine.endpoint} gave no listing of images")
    names = (name for one in found for name in one.get("RepoTags") or ())
    mine = [match for name in names if (match := _AUDIT.fullmatch(name)) and match[2] == install]
    sizes = await asyncio.gather(*(_size(engine, match[1]) for match in mine))
    return frozenset(
        Snapshot(match[1], instance_name(match[2], match[3]), size)
        for match, size in zip(mine, sizes, strict=True)
    )


def is_audit(image: str) -> bool:
    """Whether an image is one for inspection, by its name."""
    return _AUDIT.fullmatch(image) is not None


async def remove_audit(engine: Engine, image: str) -> None:
    """Remove an image for inspection, and see that it is absent.

    Raises:
        RuntimeFault: it is no such image, or something still needs it.
    """
    if not is_audit(image):
        raise RuntimeFault(
            f"{image} is no snapshot of claw's", remedy="see `claw snapshots list` for their names"
        )
    try:
        await engine.call("DELETE", f"/images/{image}", timeout=COMMIT_TIMEOUT)
    except EngineError as error:
        if error.status == CONFLICT:
            raise RuntimeFault(
                f"{image} is in use: {error.said}", remedy="end what was started from it first"
            ) from error
        if error.status != NOT_FOUND:
            raise
    if await present(engine, image):
        raise RuntimeFault(f"{image} is still there", remedy="see the engine's log")


async def _size(engine: Engine, image: str) -> int | None:
    """Bytes of the layer that a snapshot has added; None where it is gone meanwhile."""
    try:
        layers = await engine.call("GET", f"/images/{image}/history")
    except EngineError as error:
        if error.status == NOT_FOUND:
            return None
        raise
    return int(layers[0]["Size"])


async def changes(engine: Engine, instance: str) -> frozenset[str]:
    """Return the paths that were added to the image, or are not what they were there."""
    found = await engine.call("GET", f"/containers/{instance}/changes", timeout=COMMIT_TIMEOUT)
    return frozenset(change["Path"] for change in found or () if change["Kind"] != _DELETED)


async def _remove_unnamed(engine: Engine, image: str) -> None:
    """Remove an image whose name another one has taken, unless something still needs it."""
    found = await find(engine, image)
    if found is None or found.get("RepoTags"):
        return
    try:
        await engine.call("DELETE", f"/images/{image}", timeout=COMMIT_TIMEOUT)
    except EngineError as error:
        if error.status not in {NOT_FOUND, CONFLICT}:
            raise


def split(image: str) -> tuple[str, str]:
    """Return the name of an image without its tag or digest, and that, or else `latest`."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, colon, tag = image.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (image, "latest")


def _report(line: bytes, image: str, progress: Callable[[str], None], remedy: str) -> None:
    if not line.strip():
        return
    try:
        message: Any = json.loads(line)
    except ValueError:
        raise EngineBroken(f"the engine's answer about pulling {image} is no JSON") from None
    if error := message.get("error"):
        raise RuntimeFault(f"cannot pull {image}: {error}", remedy=remedy)
    detail = message.get("progress") or ""
    progress(f"pulling {image}: {message.get('status', '')} {detail}".strip())
