"""NanoClaw's image: what its container starts, in which directory, and what it must reach."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from claw_core.errors import Refused
from claw_core.model import Mount
from claw_core.routing import Route
from claw_nanoclaw.shim.arguments import Run

Configuration: TypeAlias = Mapping[str, Any]
DOCKERS_HOST: Final = "host.docker.internal"
"""What Docker calls the machine that it runs on."""


async def program(asked: Run, route: Route) -> tuple[tuple[str, ...], str]:
    """What a container starts and in which directory, as the image and the command line say.

    Raises:
        Refused: the image is not there.
        ClawError: the runtime cannot be asked.
    """
    image = await _READERS[route.runtime](route)
    if image is None:
        raise Refused(
            f"there is no image {route.spec.image}",
            runtime=route.runtime,
            phase="assess",
            cleaned="nothing was started",
            remedy="build it as NanoClaw does: container/build.sh",
        )
    if asked.entrypoint:
        argv = (asked.entrypoint, *asked.argv)
    else:
        argv = (*(image.get("Entrypoint") or ()), *(asked.argv or image.get("Cmd") or ()))
    return argv, _visible(image.get("WorkingDir") or "/", asked.mounts)


def require_names(asked: Run, route: Route) -> None:
    """Return if a container can find what its variables name.

    Raises:
        Refused: it cannot, and its agent would fail at its first question; nothing was started.
    """
    named = any(DOCKERS_HOST in value for value in asked.env.values())
    if named and route.runtime != "docker":
        raise Refused(
            f"NanoClaw has told its agent to find it at {DOCKERS_HOST}, a name of Docker's alone",
            runtime=route.runtime,
            phase="assess",
            cleaned="nothing was started",
            remedy="merge NanoClaw's skill for Apple's container, or give the group docker",
        )


def _visible(directory: str, mounts: Sequence[Mount]) -> str:
    """A directory of the image, or the mount that hides it, where Docker would make it anew."""
    hiding = [one.target for one in mounts if directory.startswith(f"{one.target.rstrip('/')}/")]
    return max(hiding, key=len, default=directory)


# A runtime that is not configured need not be installed.


async def _of_docker(route: Route) -> Configuration | None:
    from claw_runtime_docker import images
    from claw_runtime_docker.endpoint import resolve
    from claw_runtime_docker.engine import Engine

    settings = route.settings
    engine = Engine(resolve(settings.get("host"), settings.get("context"), os.environ))
    found = await images.find(engine, str(route.spec.image))
    return None if found is None else found["Config"]


async def _of_apple(route: Route) -> Configuration | None:
    from claw_runtime_apple import images
    from claw_runtime_apple.cli import Cli

    cli = Cli(route.settings.get("command") or "container")
    found = await images.find(cli, str(route.spec.image))
    return None if found is None else images.configuration(found).get("config") or {}


_READERS: Final[Mapping[str, Callable[[Route], Awaitable[Configuration | None]]]] = {
    "docker": _of_docker,
    "apple": _of_apple,
}
"""By runtime: what it knows of the image that a route starts from; None where it has none."""
