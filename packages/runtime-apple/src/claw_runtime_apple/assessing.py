"""What `container` can give for a spec, and why not."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from claw_core.isolation import Axes, Extent, Isolation
from claw_core.model import Assessment, Mount, Refusal, Spec
from claw_runtime_apple import container, images
from claw_runtime_apple.cli import Cli, Version, dotted
from claw_runtime_apple.settings import LEAST_MEMORY, Settings

SETTLE: Final = 2.0
"""Seconds after its client's death within which the service may still make a container visible.

What waits for the service's one lock is no reason for more: a deletion waits for it as well.
"""
ULIMIT: Final[Version] = (0, 9, 0)
"""The first version that has `--ulimit`."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILES: Final = "~/Library/Application Support/com.apple.container"


async def assess(cli: Cli, settings: Settings, spec: Spec) -> Assessment | Refusal:
    """Say what a container gets, or why it cannot be had.

    Raises:
        ClawError: the service cannot be asked, or is too old.
    """
    refusal = _names(spec) or _mounts(spec) or _resources(spec, settings)
    if refusal is not None:
        return refusal
    version = await cli.version()
    if spec.resources.processes is not None and version < ULIMIT:
        return Refusal(
            f"container {dotted(version)} cannot limit processes: it has no --ulimit",
            "install container 1.0 or later, or ask for no limit",
        )
    image = image_of(spec, settings)
    notes = [_copied(mount) for mount in container.files(spec)]
    if await images.find(cli, image) is None:
        if image == images.AGENT:
            return Refusal(
                f"no image is named, and there is no {image}",
                "name one with --image, or make it: claw image prepare apple",
            )
        if not settings.pull:
            return Refusal(
                f"there is no image {image}, and pulling is switched off",
                f"container image pull {image}, or name another one with --image",
            )
        notes.append(f"the image {image} is pulled first")
    return Assessment(
        Isolation.VM,
        axes(spec),
        network=spec.network or "none",
        settle=SETTLE,
        notes=tuple(notes),
    )


def image_of(spec: Spec, settings: Settings) -> str:
    """The image of an instance: its own, the one of the settings, or the one that claw makes."""
    return spec.image or settings.image or images.AGENT


def axes(spec: Spec) -> Axes:
    """The extent per axis that a container has in a virtual machine of its own."""
    # Beyond its network a guest reaches the host at the gateway's address.
    net = Extent.NONE if spec.network == "default" else Extent.FULL
    return Axes(fs=Extent.FULL, net=net, pid=Extent.FULL, kill=Extent.FULL, limits=Extent.FULL)


async def details(cli: Cli, settings: Settings) -> dict[str, str]:
    """What a reader of `claw doctor` wants to know.

    Raises:
        ClawError: the service cannot be asked.
    """
    await cli.check_service()
    found = {"service": "runs"}
    image = settings.image or images.AGENT
    if await images.find(cli, image) is not None:
        found["image"] = f"{image} is there"
    elif image == images.AGENT:
        found["image"] = f"{image} is not there; claw image prepare apple makes it"
    else:
        absent = "is pulled at its first use" if settings.pull else "is not there"
        found["image"] = f"{image} {absent}"
    with contextlib.suppress(OSError):  # it was told to keep its files elsewhere
        disk = os.statvfs(Path(_FILES).expanduser())
        found["disk"] = f"{disk.f_bavail * disk.f_frsize / (1 << 30):.1f} GiB free"
    return found


def _names(spec: Spec) -> Refusal | None:
    for name in (*spec.secrets, *spec.env):
        if not _NAME.fullmatch(name):
            return Refusal(
                f"no shell can set a variable {name!r}",
                "name variables and secrets with letters, digits and underscores",
            )
    if spec.image is not None and (spec.image.startswith("-") or not spec.image.isprintable()):
        return Refusal(f"{spec.image!r} cannot be the name of an image", "correct the name")
    return None


def _mounts(spec: Spec) -> Refusal | None:
    for mount in spec.mounts:
        text = f"{mount.source} at {mount.target}"
        target = mount.target.rstrip("/") or "/"
        if target == "/" or any(container.within(target, one) for one in ("/proc", "/sys", "/dev")):
            return Refusal(f"a container cannot have a mount at {target}", "mount it elsewhere")
        if set(text) & set(",=") or not text.isprintable():
            return Refusal(
                f"`container` cannot mount {text}: it splits at `,` and `=`", "rename the directory"
            )
        if not mount.source.exists():
            return Refusal(f"{mount.source} does not exist", "create it first")
        if mount.source.is_file():
            refusal = _file(mount, spec)
            if refusal is not None:
                return refusal
        elif not mount.source.is_dir():
            return Refusal(
                f"{mount.source} is neither a file nor a directory", "mount its directory"
            )
    return None


def _file(mount: Mount, spec: Spec) -> Refusal | None:
    """Why a file cannot be copied in instead of being mounted."""
    if mount.writable:
        return Refusal(
            f"the file {mount.source} cannot be mounted: all its directory would be shared with "
            "the virtual machine, and a copy would not change it",
            "mount a directory that has only this file, or mount it read-only",
        )
    for other in container.directories(spec):
        if container.within(mount.target, other.target):
            return Refusal(
                f"the file {mount.source} would be copied into the mount {other.target}",
                "mount it elsewhere, or put it into that directory",
            )
    return None


def _resources(spec: Spec, settings: Settings) -> Refusal | None:
    asked = spec.resources
    processors = os.cpu_count() or 1
    if asked.cpus is not None and asked.cpus < 1:
        return Refusal(
            f"{asked.cpus:g} processors are asked for, and a virtual machine has whole ones",
            "ask for 1 or more",
        )
    if asked.cpus is not None and asked.cpus > processors:
        return Refusal(
            f"{asked.cpus:g} processors are asked for, and this machine has {processors}",
            "ask for fewer",
        )
    if asked.memory is not None and asked.memory < LEAST_MEMORY:
        return Refusal("a virtual machine has no less than 200 MiB of memory", "ask for 200m")
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if asked.memory is not None and asked.memory > have:
        return Refusal(
            f"more memory is asked for than the {have >> 30} GiB of this machine", "ask for less"
        )
    if asked.processes is not None and settings.identity.startswith("0:"):
        return Refusal(
            "the number of root's processes cannot be limited",
            "ask for no limit, or set the setting user",
        )
    return None


def _copied(mount: Mount) -> str:
    return f"{mount.target} is a copy of {mount.source}, which is not mounted as it is a file"
