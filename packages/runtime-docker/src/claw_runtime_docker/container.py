"""What an engine is asked to create: hardened, mortal, and known by its name and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import attrs

from claw_core.model import Instance, Mount, Spec
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.scripts import KEEPER, OWN
from claw_runtime_docker.settings import Settings

HOME: Final = "/home/agent"
"""Home directory of every command: scratch space in memory."""
WORKSPACE: Final = "/workspace"
"""Where commands start if nothing else is said: the first mount, or else scratch space here."""
SCRATCH: Final = ("/tmp", "/run", OWN, HOME, WORKSPACE)  # noqa: S108 - inside the container
"""Writable places, in memory."""
OWN_PLACES: Final = (HOME, WORKSPACE)
"""Those of them that lie on the disk where that is kept: they are for what a command makes."""
PROFILE: Final = Path(__file__).with_name("seccomp.json")
"""Filter of system calls under which no command can set a set-user-id bit, in Docker's format."""
INSTALL_LABEL: Final = "claw.install"
TOMBSTONE_LABEL: Final = "claw.tombstone"


@attrs.frozen
class Abilities:
    """What engines differ in.

    Attributes:
        init: whether it has an init process for containers.
        recursive: whether it makes what is mounted below a read-only mount read-only, too; where
            it does not, such mounts are left out.
        podman: whether it is Podman: there scratch space cannot belong to a user from the start, so
            that everybody may write to it, and naming one limit would raise the others.
        seccomp: whether it can filter system calls.
    """

    init: bool
    recursive: bool
    podman: bool
    seccomp: bool

    @classmethod
    async def of(cls, engine: Engine) -> Self:
        """Ask an engine, or remember what it said.

        Raises:
            ClawError: it cannot be asked.
        """
        info = await engine.info(known=True)
        return cls(
            init=bool(info.get("InitBinary")),
            recursive=await engine.speaks(1, 44) and not engine.podman,
            podman=engine.podman,
            seccomp=filters_calls(info),
        )


def create_body(
    instance: Instance,
    settings: Settings,
    image: str,
    token: str,
    able: Abilities,
    *,
    on_disk: bool = False,
) -> dict[str, Any]:
    """Return the body of the request that creates the instance's container.

    Args:
        instance: what it is for.
        settings: of the runtime.
        image: what it starts from.
        token: what ends the secrets that the keeper is told.
        able: what the engine can do.
        on_disk: whether the places of `OWN_PLACES` lie on its disk, not in memory.
    """
    spec = instance.spec
    resources = spec.resources
    memory = resources.memory or settings.memory
    uid, _, gid = settings.identity.partition(":")
    # A directory that is in the image keeps its mode, so each must belong to who shall write there.
    owner = "mode=1777" if able.podman else f"uid={uid},gid={gid}"
    options = f"rw,exec,nosuid,nodev,size={memory},{owner}"
    elsewhere = {mount.target.rstrip("/") for mount in spec.mounts}
    if on_disk:
        elsewhere |= {*OWN_PLACES}
    return {
        "Image": image,
        "Entrypoint": ["sh", "-c", KEEPER, "claw"],
        "Cmd": [token],
        "User": settings.identity,
        "WorkingDir": "/",
        "Labels": labels(instance.name),
        "Healthcheck": {"Test": ["NONE"]},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "AutoRemove": not spec.persistent,  # else it is gone as soon as it is stopped
            "Init": able.init,
            "LogConfig": {"Type": "none"},
            "NetworkMode": "default" if spec.network == "default" else "none",
            "CapDrop": ["ALL"],
            "CapAdd": list(settings.capabilities),
            "SecurityOpt": _security(spec, settings, able),
            "IpcMode": "private",
            "ReadonlyRootfs": settings.read_only and not on_disk,
            "Tmpfs": {place: options for place in SCRATCH if place not in elsewhere},
            "PidsLimit": resources.processes or settings.processes,
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int((resources.cpus or settings.cpus or 0) * 1e9),
            "Ulimits": [] if able.podman else [{"Name": "core", "Soft": 0, "Hard": 0}],
            "ExtraHosts": list(settings.hosts),
            "Mounts": [_mount(mount, recursive=able.recursive) for mount in spec.mounts],
            **({"Runtime": settings.oci_runtime} if settings.oci_runtime else {}),
        },
    }


def tombstone_body(name: str, image: str) -> dict[str, Any]:
    """Return the body of a request for a container that only holds a name, and never starts."""
    return {
        "Image": image,
        "Entrypoint": ["sh"],
        "Labels": {**labels(name), TOMBSTONE_LABEL: "1"},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }


def labels(name: str) -> dict[str, str]:
    """What tells whose a container is."""
    return {INSTALL_LABEL: name.split("-")[1], "claw.instance": name}


def misplaced(mounts: tuple[Mount, ...]) -> str | None:
    """Return the target of a mount that would cover what the container is made of."""
    for mount in mounts:
        target = mount.target.rstrip("/") or "/"
        if target in {"/", "/run"} or f"{target}/".startswith(("/proc/", "/sys/", "/dev/", OWN)):
            return target
    return None


def directory(spec: Spec) -> str:
    """Return where commands start that do not say so."""
    if spec.workdir is not None:
        return spec.workdir
    return next((mount.target for mount in spec.mounts if mount.source.is_dir()), WORKSPACE)


def filters_calls(info: Mapping[str, Any]) -> bool:
    """Whether an engine can filter system calls, by what it says of itself."""
    return "seccomp" in str(info.get("SecurityOptions"))


def filtered(spec: Spec, settings: Settings) -> bool:
    """Whether a set-user-id file could be left on the host, and shall not be.

    Elsewhere the engine's own filter is enough; it lets package managers work.
    """
    return settings.seccomp == "claw" and any(mount.writable for mount in spec.mounts)


def _security(spec: Spec, settings: Settings, able: Abilities) -> list[str]:
    if not (able.seccomp and filtered(spec, settings)):
        return ["no-new-privileges"]
    # Podman opens the file itself; Docker wants what is in it.
    return ["no-new-privileges", f"seccomp={PROFILE if able.podman else PROFILE.read_text()}"]


def _mount(mount: Mount, *, recursive: bool) -> dict[str, Any]:
    # An engine that cannot make what is mounted below read-only would leave it writable.
    alone = not mount.writable and not recursive
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": not mount.writable,
        "BindOptions": {"Propagation": "rprivate", **({"NonRecursive": True} if alone else {})},
    }
