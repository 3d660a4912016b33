"""What an engine can give for a spec, and why not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from claw_core.isolation import Axes, Extent, Isolation
from claw_core.model import Assessment, Refusal, Spec
from claw_runtime_docker import container, images
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import NOT_FOUND, EngineError
from claw_runtime_docker.settings import Settings

SETTLE: Final = 2.0
"""Seconds after its client's death within which an engine may still make a container visible."""
LEAST_MEMORY: Final = 6 << 20
"""Bytes below which engines refuse to create a container."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


async def assess(engine: Engine, settings: Settings, spec: Spec) -> Assessment | Refusal:
    """Say what a container gets, or why it cannot be had.

    Raises:
        ClawError: the engine cannot be asked.
    """
    image = image_of(spec, settings)
    if any(not _NAME.fullmatch(name) for name in spec.secrets):
        return Refusal(
            "a secret has a name that a shell cannot set",
            "name secrets with letters, digits and underscores",
        )
    if target := container.misplaced(spec.mounts):
        return Refusal(f"a container cannot have a mount at {target}", "mount it elsewhere")
    await engine.version()
    info, missing, network = await asyncio.gather(
        engine.info(),
        images.obtainable(engine, image, pull=settings.pull),
        _network(engine, spec),
    )
    refusal = missing or network or _runtime(info, settings) or _resources(info, spec)
    if refusal is not None:
        return refusal
    return Assessment(
        level(info, settings),
        axes(info, spec),
        network=spec.network or "none",
        settle=SETTLE,
        terminal=True,
        notes=tuple(_notes(engine, settings, spec, info)),
    )


def image_of(spec: Spec, settings: Settings) -> str:
    """The image of an instance: its own, the one of the settings, or the one that claw makes."""
    return spec.image or settings.image or images.AGENT


def level(info: Mapping[str, Any], settings: Settings) -> Isolation:
    """`kernel` where gVisor starts the containers."""
    name = settings.oci_runtime or info.get("DefaultRuntime") or ""
    found = (info.get("Runtimes") or {}).get(name) or {}
    program = str(found.get("runtimeType") or found.get("path") or name)
    return Isolation.KERNEL if "runsc" in program else Isolation.CONTAINER


def axes(info: Mapping[str, Any], spec: Spec) -> Axes:
    """The extent per axis that a container of this engine has."""
    bounded = info.get("MemoryLimit") and info.get("PidsLimit", True)
    return Axes(
        fs=Extent.FULL,
        # Beyond its bridge a container reaches the host's other addresses, its loopback excepted.
        net=Extent.NONE if spec.network == "default" else Extent.FULL,
        pid=Extent.FULL,
        kill=Extent.FULL,
        limits=Extent.FULL if bounded else Extent.PARTIAL,
    )


async def details(engine: Engine, info: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """What a reader of `claw doctor` wants to know of an engine.

    Raises:
        ClawError: the engine cannot be asked.
    """
    found = {
        "API": await engine.version(),
        "storage": f"{info.get('Driver')} in {info.get('DockerRootDir')}",
        "cgroups": f"version {info.get('CgroupVersion') or 1}, by {info.get('CgroupDriver')}",
    }
    image = settings.image or images.AGENT
    if await images.present(engine, image):
        found["image"] = f"{image} is there"
    elif image == images.AGENT:
        found["image"] = f"{image} is not there; claw image prepare docker makes it"
    else:
        absent = "is pulled at its first use" if settings.pull else "is not there"
        found["image"] = f"{image} {absent}"
    if engine.endpoint.scheme == "unix":
        with contextlib.suppress(OSError):  # another machine's, behind a socket of this one
            disk = os.statvfs(str(info.get("DockerRootDir")))
            found["disk"] = f"{disk.f_bavail * disk.f_frsize / (1 << 30):.1f} GiB free"
    return found


async def _network(engine: Engine, spec: Spec) -> Refusal | None:
    if spec.network != "default":
        return None
    name = "podman" if engine.podman else "bridge"
    try:
        await engine.call("GET", f"/networks/{name}")
    except EngineError as error:
        if error.status != NOT_FOUND:
            raise
        return Refusal(f"the engine has no network {name}", "run with --network none")
    return None


def _runtime(info: Mapping[str, Any], settings: Settings) -> Refusal | None:
    wanted = settings.oci_runtime
    known = sorted(info.get("Runtimes") or {})
    if wanted is None or wanted in known:
        return None
    return Refusal(
        f"the engine knows no OCI runtime {wanted}, only {', '.join(known) or 'its own'}",
        f"install {wanted} and add it to the engine's daemon.json, or correct oci_runtime",
    )


def _resources(info: Mapping[str, Any], spec: Spec) -> Refusal | None:
    asked = spec.resources
    processors = info.get("NCPU")
    if asked.cpus is not None and processors and asked.cpus > processors:
        return Refusal(
            f"{asked.cpus:g} processors are asked for, and the engine has {processors}",
            "ask for fewer",
        )
    if asked.memory is not None and asked.memory < LEAST_MEMORY:
        return Refusal("an engine gives no less than 6 MiB of memory", "ask for more memory")
    unable = [
        what
        for what, value, able in (
            ("memory", asked.memory, info.get("MemoryLimit")),
            ("processors", asked.cpus, info.get("CpuCfsQuota", True)),
            ("processes", asked.processes, info.get("PidsLimit", True)),
        )
        if value is not None and not able
    ]
    if unable:
        return Refusal(
            f"the engine cannot limit {' and '.join(unable)}",
            "leave the limit out, or give the engine the control groups that it needs",
        )
    return None


def _notes(engine: Engine, settings: Settings, spec: Spec, info: Mapping[str, Any]) -> list[str]:
    notes = []
    uid = settings.identity.partition(":")[0]
    if uid == "0":
        notes.append("commands run as root of the container, as the setting user says")
    elif settings.user is None and os.getuid() == 0 and any(m.writable for m in spec.mounts):
        notes.append(
            f"commands run as {settings.identity}, not as root: they write to a mount only where "
            "that user may, unless the setting user says otherwise"
        )
    if engine.endpoint.scheme == "tcp":
        notes.append(f"everything travels to {engine.endpoint} in the clear, secrets included")
    filters = container.filters_calls(info)
    if not filters or "profile=unconfined" in str(info.get("SecurityOptions")):
        notes.append("the engine filters no system calls: it runs without seccomp")
    if container.filtered(spec, settings) and (
        not filters or level(info, settings) is Isolation.KERNEL
    ):
        notes.append("a command may leave a set-user-id file in a writable mount")
    if not info.get("MemoryLimit"):
        notes.append("the engine cannot limit memory")
    return notes
