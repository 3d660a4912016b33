"""What a machine of an image will give, or why there can be none; and what a doctor is told."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from claw_core import tools
from claw_core.isolation import Axes, Extent, Isolation
from claw_core.model import Assessment, Claim, Description, Refusal, Spec
from claw_core.tasks import in_thread
from claw_runtime_tart import cli, vms
from claw_runtime_tart.cli import Tart
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.settings import IMAGE, Settings
from claw_runtime_tart.shares import Shares
from claw_runtime_tart.vms import Directory

MACOS_LIMIT: Final = 2
"""macOS guests that Apple's licence allows a host to run at a time; the kernel sees to it."""
LEASE_ADVISED: Final = 3600
"""Seconds: with leases of a day the network is out of addresses after 253 machines."""
_LEASES: Final = "/Library/Preferences/SystemConfiguration/com.apple.InternetSharing.default.plist"


def image_of(spec: Spec, settings: Settings) -> str:
    """The image of an instance: its own, or the one of the settings."""
    return spec.image or settings.image


def restricted(spec: Spec, settings: Settings) -> bool:
    """Whether the guest's network is closed, so that it is reached through the guest agent."""
    return spec.network == "none" or bool(settings.allow)


async def assess(tart: Tart, settings: Settings, spec: Spec) -> Assessment | Refusal:
    """Say what a machine gives for the spec, or why it cannot be had."""
    version = await tart.version()
    if not cli.supported(version):
        oldest = ".".join(map(str, cli.OLDEST))
        return Refusal(f"this is Tart {version}, and {oldest} is the first that works", cli.INSTALL)
    image = image_of(spec, settings)
    path = await in_thread(Directory(tart.home).image, image)
    if path is None and not (settings.pull and vms.is_remote(image)):
        return _absent(image)
    if restricted(spec, settings) and tart.softnet() is None:
        return Refusal(
            "without softnet Tart cannot close a guest's network",
            "brew install openai/tools/softnet, or run with the network default",
        )
    if spec.resources.processes is not None:
        return Refusal("Tart cannot limit processes", "leave the limit out")
    shares = await in_thread(Shares.of, spec.mounts, settings.share)
    if refusal := shares.refusal():
        return refusal
    # What is still to be pulled may be anything; so it counts as macOS.
    config = await in_thread(vms.config, path) if path else {"os": "darwin"}
    known = await in_thread(Identity.load, path) if path else None
    running = path is not None and await in_thread(vms.holder, path) is not None
    return Assessment(
        isolation=Isolation.VM,
        axes=Axes(
            fs=Extent.FULL,
            net=Extent.FULL if restricted(spec, settings) else Extent.NONE,
            pid=Extent.FULL,
            kill=Extent.FULL,
            limits=Extent.FULL,
        ),
        network="none" if spec.network == "none" else "default",
        slots=_claims(config, settings, spec),
        notes=tuple(_notes(settings, spec, shares, known, image, running=running)),
        terminal=settings.transport != "agent",
    )


def _absent(image: str) -> Refusal:
    if vms.is_remote(image):
        return Refusal(f"Tart has not pulled {image}", f"tart pull {image}")
    remedy = "name another one with --image"
    if image == IMAGE:
        remedy = "make it: claw image prepare tart"
    return Refusal(f"Tart has no virtual machine {image}", remedy)


def _claims(config: Mapping[str, Any], settings: Settings, spec: Spec) -> tuple[Claim, ...]:
    """What a machine takes: one of two places if its guest is macOS, and memory."""
    claims = [Claim("macos-vm", 1, MACOS_LIMIT)] if config.get("os") == "darwin" else []
    memory = spec.resources.memory or config.get("memorySize")
    budget = settings.memory_budget or _memory()
    if isinstance(memory, int) and budget:
        megabytes = budget >> 20
        claims.append(Claim("vm-memory-mb", min(memory >> 20, megabytes), megabytes))
    return tuple(claims)


def _memory() -> int:
    """Bytes of memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _notes(
    settings: Settings,
    spec: Spec,
    shares: Shares,
    known: Identity | None,
    image: str,
    *,
    running: bool,
) -> list[str]:
    notes = []
    if known is None and settings.transport != "agent":
        notes.append(
            f"{image} was not prepared by claw: its guests cannot be told from others, and let in "
            "whoever knows the password"
        )
    if running:
        notes.append(f"{image} is running: its clones have what it has written so far")
    if spec.network != "none" and not settings.allow:
        notes.append("the guest can reach this host's services and its local network")
    notes += [
        f"{mount.source} is copied in{', and back after every command' * mount.writable}"
        for mount in shares.copied
    ]
    return notes


async def describe(tart: Tart, settings: Settings) -> Description:
    """Say what Tart offers here, and whatever may stand in its way."""
    version = await tart.version()
    if not cli.supported(version):
        oldest = ".".join(map(str, cli.OLDEST))
        return Description(
            False, version, reason=f"the first that works is {oldest}", remedy=cli.INSTALL
        )
    full = Extent.FULL
    softnet = tart.softnet()
    return Description(
        True,
        version,
        isolation=Isolation.VM,
        axes=Axes(full, full if softnet else Extent.NONE, full, full, full),
        details=await _details(tart, settings, softnet),
    )


async def _details(tart: Tart, settings: Settings, softnet: str | None) -> dict[str, str]:
    directory = Directory(tart.home)
    found = {"command": tart.executable, "machines": str(tart.home)}
    if sys.platform == "darwin":
        silicon = platform.machine() == "arm64"
        found["processor"] = "Apple silicon" if silicon else "Intel: Linux guests only"
    path = await in_thread(directory.image, settings.image)
    if path is None:
        refusal = _absent(settings.image)
        found["image"] = f"{settings.image} is not there; {refusal.remedy}"
    else:
        known = await in_thread(Identity.load, path)
        found["image"] = f"{settings.image} is there" + (
            "" if known else ", and was not prepared by claw: its host keys are not known"
        )
    found["softnet"] = softnet or "is not installed: no network `none`, and no allow-list"
    found["memory"] = f"{_memory() / (1 << 30):.0f} GiB"
    with contextlib.suppress(OSError):  # there is no such directory yet
        disk = os.statvfs(tart.home)
        found["disk"] = f"{disk.f_bavail * disk.f_frsize / (1 << 30):.1f} GiB free"
    running = await in_thread(_running, directory)
    found["running"] = f"{running} macOS machines of at most {MACOS_LIMIT}"
    if sys.platform == "darwin":
        found["leases"] = await _leases()
        found["local network"] = (
            "a service that is not started from a terminal needs permission, see "
            "docs/how-to/use-tart.md"
        )
    return found


def _running(directory: Directory) -> int:
    """How many macOS machines of this Tart run; others are not seen."""
    return sum(
        directory.config(name).get("os") == "darwin" and directory.holder(name) is not None
        for name in directory.names()
    )


async def _leases() -> str:
    """For how long the host's DHCP server gives addresses."""
    done = await tools.run(("defaults", "read", _LEASES.removesuffix(".plist"), "bootpd"))
    found = re.search(rb"DHCPLeaseTimeSecs\s*=\s*(\d+)", done.stdout)
    seconds = int(found[1]) if found else 86_400
    if seconds <= LEASE_ADVISED:
        return f"{seconds} s"
    return (
        f"{seconds} s: after 253 machines in that time there are no addresses left; "
        f"sudo defaults write {_LEASES} bootpd -dict DHCPLeaseTimeSecs -int 600"
    )


def find(settings: Settings) -> Tart:
    """The command that settings mean, and where it keeps its machines."""
    home = settings.home or Path(os.environ.get("TART_HOME") or Path.home() / ".tart")
    return Tart(Tart.find(settings.tart), home.absolute())
