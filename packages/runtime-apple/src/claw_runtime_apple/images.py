"""Images: whether one is there, pulling it, and those that are kept for inspection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.model import Audit, Snapshot, SnapshotTarget, instance_name
from claw_runtime_apple.cli import Cli, asked, document
from claw_runtime_apple.errors import ContainerError, failure

AGENT: Final = "claw-agent"
"""The image that `claw image prepare` makes, and of instances for which none is named."""
AUDITS: Final = "claw-audit"
"""Repository of images that are kept for inspection."""
PULL_TIMEOUT: Final = 540.0
"""Seconds that a pull may take."""
LOAD_TIMEOUT: Final = 600.0
"""Seconds that loading an image may take."""
LIST_TIMEOUT: Final = 12.0
"""Seconds that a listing has."""
DELETE_TIMEOUT: Final = 60.0
"""Seconds that deleting an image may take."""

_AUDIT: Final = re.compile(
    rf"(?:docker\.io/library/)?({AUDITS}:.+-([0-9a-f]{{8}})-([0-9a-f]{{12}}))"
)
"""The name of one: it tells which install has made it of which instance."""


async def find(cli: Cli, image: str) -> Any:
    """Return what there is to know of an image; None where it is not there.

    Raises:
        ClawError: that cannot be told.
    """
    arguments = ("image", "inspect", image)
    done = await cli.ask(*arguments)
    if not done.code:
        found = document(done)
        return found[0] if isinstance(found, list) and found else None
    error = failure(done.code, done.stderr, asked(arguments))
    if isinstance(error, ContainerError) and "not found" in error.said.lower():
        return None
    raise error


def configuration(found: Any) -> dict[str, Any]:
    """Return the configuration of an image for this machine, of what `find` knows of it."""
    variants = [one for one in (found or {}).get("variants", ()) if isinstance(one, dict)]
    configurations = [one["config"] for one in variants if isinstance(one.get("config"), dict)]
    mine = [one for one in configurations if one.get("architecture") == "arm64"]
    return next(iter([*mine, *configurations]), {})


async def pull(cli: Cli, host: Host, image: str) -> None:
    """Pull an image.

    Raises:
        RuntimeFault: it cannot be pulled.
    """
    host.progress(f"pulling {image}")
    try:
        await cli.of(host).call("image", "pull", "--progress", "none", image, timeout=PULL_TIMEOUT)
    except ContainerError as error:
        raise RuntimeFault(
            f"there is no image {image}, and it cannot be pulled: {error.said}",
            remedy=f"with a network, container image pull {image}; "
            "without one, container image load -i FILE",
        ) from error


def name_of(instance: str, target: SnapshotTarget) -> str:
    """The name of what is kept of an instance."""
    if isinstance(target, Audit):
        return f"{AUDITS}:{target.slug}-{instance.removeprefix('claw-')}"
    tail = target.name.rpartition("/")[2]
    return target.name if ":" in tail else f"{target.name}:latest"


def whole_name(image: str) -> str:
    """A name as the store of images has it, with its registry: only so is it found again."""
    registry, slash, _ = image.partition("/")
    if slash and (set(registry) & set(".:") or registry == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


async def audits(cli: Cli, install: str) -> frozenset[Snapshot]:
    """The service's own listing of an install's images for inspection.

    Raises:
        ClawError: there is no listing.
    """
    found = document(await cli.call("image", "ls", "--format", "json", timeout=LIST_TIMEOUT))
    if not isinstance(found, list):
        raise RuntimeFault(
            "`container image ls` gave no listing", remedy="see `container --version`"
        )
    listed = [(_AUDIT.fullmatch(_name(one)), one) for one in found if isinstance(one, dict)]
    return frozenset(
        Snapshot(match[1], instance_name(match[2], match[3]), _size(one))
        for match, one in listed
        if match is not None and match[2] == install
    )


async def remove_audit(cli: Cli, image: str) -> None:
    """Remove an image for inspection, and see that it is absent.

    Raises:
        RuntimeFault: it is no such image, or it is still there.
    """
    if _AUDIT.fullmatch(image) is None:
        raise RuntimeFault(
            f"{image} is no snapshot of claw's", remedy="see `claw snapshots list` for their names"
        )
    said = ""
    if await find(cli, image) is not None:
        try:
            await cli.call("image", "delete", image, timeout=DELETE_TIMEOUT)
        except ContainerError as error:  # somebody else may have been faster
            said = f": {error.said}"
        if await find(cli, image) is not None:
            raise RuntimeFault(
                f"{image} is still there{said}", remedy="end what was started from it first"
            )


def _name(entry: Mapping[str, Any]) -> str:
    """The name of a listed image: at its top before 1.0, else in its configuration."""
    configuration = entry.get("configuration")
    inner = configuration.get("name") if isinstance(configuration, dict) else None
    return str(inner or entry.get("reference") or entry.get("name") or "")


def _size(entry: Mapping[str, Any]) -> int | None:
    """Bytes of an image, which shares its one layer with no other."""
    sizes = [one.get("size") for one in entry.get("variants") or () if isinstance(one, dict)]
    known = [size for size in sizes if isinstance(size, int)]
    return sum(known) if known else None
