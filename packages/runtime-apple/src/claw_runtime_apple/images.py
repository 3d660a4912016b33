"""Images: whether one is there, pulling it, and making one of an instance."""

from __future__ import annotations

import re
from typing import Any, Final

from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.model import Audit, SnapshotTarget
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
        label = re.sub(r"[^A-Za-z0-9_.-]+", "-", target.label).strip("-.")[:100] or "audit"
        return f"{AUDITS}:{label}-{instance.rpartition('-')[2]}"
    tail = target.name.rpartition("/")[2]
    return target.name if ":" in tail else f"{target.name}:latest"


def whole_name(image: str) -> str:
    """A name as the store of images has it, with its registry: only so is it found again."""
    registry, slash, _ = image.partition("/")
    if slash and (set(registry) & set(".:") or registry == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
