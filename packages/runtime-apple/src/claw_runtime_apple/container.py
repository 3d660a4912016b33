"""What a container is made of: the command line that makes it, and the names of its places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from claw_core.model import Instance, Mount, Resources, Spec
from claw_runtime_apple.scripts import KEEPER
from claw_runtime_apple.settings import Settings

HOME: Final = "/home/agent"
"""Home directory of every command."""
WORKSPACE: Final = "/workspace"
"""Where commands start if nothing else is said: the first mount, or else this directory."""
TEMPORARY: Final = "/tmp"  # noqa: S108 - inside the container
"""What lies there is for nobody to keep."""
SCRATCH: Final = (TEMPORARY, HOME, WORKSPACE)
"""Directories that everybody inside may write to; they lie on the instance's disk."""


def arguments(instance: Instance, settings: Settings, image: str, token: str) -> list[str]:
    """The call that makes and starts the instance's container, and holds it alive.

    Its first process is root's, so that no command can end it; commands are the caller's.

    Args:
        instance: what it is for.
        settings: of the runtime.
        image: what it starts from.
        token: what its first process says when it runs.
    """
    spec = instance.spec
    processors, memory = extent(spec.resources, settings)
    limit = spec.resources.processes
    return [
        "run",
        "-i",
        *([] if spec.persistent else ["--rm"]),
        "--name",
        instance.name,
        "--progress",
        "none",
        *_labels(instance.name),
        "--user",
        "0:0",
        "--workdir",
        "/",
        "--cpus",
        str(processors),
        "--memory",
        f"{memory >> 20}M",
        *([] if limit is None else ["--ulimit", f"nproc={limit}:{limit}"]),
        *([] if spec.network == "default" else ["--network", "none"]),
        *(part for mount in directories(spec) for part in ("--mount", _mount(mount))),
        "--entrypoint",
        "sh",
        image,
        "-c",
        KEEPER,
        "claw",
        token,
        *scratch(spec),
    ]


def restart(name: str) -> list[str]:
    """The call that starts a container which was stopped, and holds it alive."""
    return ["start", "-a", "-i", name]


def extent(resources: Resources, settings: Settings) -> tuple[int, int]:
    """Processors, whole ones, and bytes of memory of an instance."""
    processors = min(settings.cpus, os.cpu_count() or 1)
    if resources.cpus is not None:
        processors = int(resources.cpus)
    return processors, resources.memory or settings.memory


def directories(spec: Spec) -> list[Mount]:
    """The mounts that are mounted."""
    return [mount for mount in spec.mounts if mount.source.is_dir()]


def files(spec: Spec) -> list[Mount]:
    """The mounts that are copied: to mount a file would share all its directory with the guest."""
    return [mount for mount in spec.mounts if not mount.source.is_dir()]


def scratch(spec: Spec) -> list[str]:
    """The scratch directories that are on the instance's own disk, and not the host's."""
    return [
        place for place in SCRATCH if not any(within(place, m.target) for m in directories(spec))
    ]


def within(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it."""
    return f"{path.rstrip('/')}/".startswith(f"{directory.rstrip('/')}/")


def start_directory(spec: Spec) -> str:
    """Where commands start that do not say so."""
    if spec.workdir is not None:
        return spec.workdir
    return next((mount.target for mount in directories(spec)), WORKSPACE)


def environment(spec: Spec, secrets: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command."""
    return {"HOME": HOME, **spec.env, **secrets, **more}


def _labels(name: str) -> list[str]:
    labels = {"claw.install": name.split("-")[1], "claw.instance": name}
    return [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]


def _mount(mount: Mount) -> str:
    text = f"type=bind,source={mount.source},target={mount.target}"
    return text if mount.writable else f"{text},readonly"
