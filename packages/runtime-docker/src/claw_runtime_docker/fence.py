"""Removes a container by name, and makes sure that none of that name can still come.

The engine works on after its client's death: a container may appear after a delete that found
nothing. Whoever creates a container of the same name first either fails, because the creation is
under way and will show itself, or holds the name, so that the creation fails.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from claw_core import failpoints
from claw_core.errors import TeardownFailed
from claw_runtime_docker.container import tombstone_body
from claw_runtime_docker.creation import create, taken
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import CONFLICT, NOT_FOUND, EngineError

GRACE: Final = 0.05
"""Seconds for which a name is held, for a request that the engine has not read yet."""
PATIENCE: Final = 45.0
"""Seconds until an attempt gives up; core makes others."""

_DELETED = failpoints.declare("docker.post-delete", "no container of its name is seen")
_FENCED = failpoints.declare("docker.tombstone", "its name is held by a tombstone")
_LIFTED = failpoints.declare("docker.post-tombstone", "the tombstone is removed")


async def remove(engine: Engine, name: str) -> bool:
    """Remove a container with its anonymous volumes, and return whether there was one.

    Returns when it is gone, also when somebody else is removing it.

    Raises:
        TeardownFailed: it does not go.
    """
    until = time.monotonic() + PATIENCE
    existed = False
    pause = 0.002
    while True:
        try:
            await engine.call("DELETE", f"/containers/{name}", {"force": 1, "v": 1})
        except EngineError as error:
            if error.status == NOT_FOUND:
                return existed
            if error.status != CONFLICT and "in progress" not in error.said:
                raise
            # Another removal, AutoRemove for instance, is under way, and its end is no event that
            # can be waited for without a race.
            existed = True
        else:
            return True
        if time.monotonic() > until:
            raise TeardownFailed(
                "its container is being removed for too long", remedy="see the engine's log"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.25)


async def fence(engine: Engine, name: str, image: str | None) -> None:
    """Remove a container whose creation may still be under way; afterwards it cannot come.

    Args:
        engine: where it is.
        name: of the container.
        image: what it starts from, for the tombstone; any other does as well.

    Raises:
        TeardownFailed: neither could it be removed nor its name be held.
    """
    until = time.monotonic() + PATIENCE
    pause = 0.002
    while True:
        await remove(engine, name)
        failpoints.hit(_DELETED)
        if await _hold(engine, name, image):
            failpoints.hit(_FENCED)
            await asyncio.sleep(GRACE)
            await remove(engine, name)
            failpoints.hit(_LIFTED)
            return
        if time.monotonic() > until:
            raise TeardownFailed(
                "the engine is creating its container for too long", remedy="see the engine's log"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.25)


async def _hold(engine: Engine, name: str, image: str | None) -> bool:
    """Create the tombstone; false where the name is taken."""
    for one in (image, None):
        chosen = one or await _any_image(engine)
        if chosen is None:
            # Without any image nothing can be created, whatever is under way.
            return True
        try:
            await create(engine, name, tombstone_body(name, chosen))
        except EngineError as error:
            if taken(error):
                return False
            if error.status == NOT_FOUND and one is not None:
                continue  # the image is gone meanwhile
            raise
        return True
    raise AssertionError


async def _any_image(engine: Engine) -> str | None:
    images = await engine.call("GET", "/images/json")
    return images[0]["Id"] if images else None
