"""Creates a container: the one request that must not be lost sight of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import CONFLICT, EngineError

PATIENCE: Final = 10.0
"""Seconds for which an engine is asked again that does not find what it has."""
_FORGETFUL: Final = "layer not known"
_TAKEN: Final = ("already in use", "is in use", "already exists")


async def create(
    engine: Engine, name: str, body: Mapping[str, Any], *, timeout: float | None = None
) -> None:
    """Create a container.

    Podman may not know the layers of an image while it imports, creates or removes others at the
    same time (https://github.com/containers/podman/issues/6510); nothing was created then, and a
    moment later it knows them.

    Args:
        engine: where.
        name: of the container.
        body: of the request.
        timeout: seconds for one request; None is the engine's own.

    Raises:
        EngineError: it was refused; see `taken`.
        EngineBroken: whether there is a container now, or will be, is unknown.
    """
    until, pause = time.monotonic() + PATIENCE, 0.02
    while True:
        try:
            await engine.call("POST", "/containers/create", {"name": name}, body, timeout=timeout)
        except EngineError as error:
            if _FORGETFUL not in error.said or time.monotonic() > until:
                raise
            await asyncio.sleep(pause)  # the end of other requests is no event here
            pause = min(pause * 2, 0.5)
        else:
            return


def taken(error: EngineError) -> bool:
    """Whether an engine means that a name is in use: 409, or one of Podman's 500."""
    return error.status == CONFLICT or any(text in error.said for text in _TAKEN)
