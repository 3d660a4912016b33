"""Brings a container to life: started, told its secrets, and seen to answer; and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from claw_core.errors import RuntimeFault
from claw_runtime_docker import frames
from claw_runtime_docker.connection import Connection
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import NOT_FOUND, EngineError
from claw_runtime_docker.scripts import secrets_file

START_TIMEOUT: Final = 120.0
"""Seconds that the engine has to start a container."""
READY_TIMEOUT: Final = 60.0
"""Seconds that a started container has to answer."""
END_TIMEOUT: Final = 30.0
"""Seconds that a container has to end that was killed."""


async def begin(
    engine: Engine, held: Connection, name: str, token: str, secrets: Mapping[str, str]
) -> str:
    """Start a container whose standard input is `held`, and return its keeper's pid.

    Raises:
        RuntimeFault: it does not start, or ends at once.
    """
    await engine.call("POST", f"/containers/{name}/start", timeout=START_TIMEOUT)
    timer = asyncio.timeout(READY_TIMEOUT)
    try:
        async with timer:
            await held.write(secrets_file(secrets, token))
            return await _answer(held, token)
    except TimeoutError:
        if not timer.expired():
            raise
        raise RuntimeFault(
            f"the container did not answer within {READY_TIMEOUT:g} s",
            remedy="see whether the machine is overloaded",
        ) from None
    except OSError:
        return await _answer(held, token)  # it has ended already, and may have said why


async def token(engine: Engine, name: str) -> str:
    """Return what ends the secrets that the keeper of a container is told.

    Raises:
        EngineError: there is no such container.
    """
    return str((await engine.call("GET", f"/containers/{name}/json"))["Config"]["Cmd"][0])


async def end(engine: Engine, name: str) -> None:
    """Kill everything in a container, and return when it has ended; its disk stays.

    Raises:
        RuntimeFault: it does not end, or there is no such container.
    """
    try:
        await engine.call("POST", f"/containers/{name}/kill")
    except EngineError as error:
        # That it does not run is a conflict for Docker, and some other error for Podman.
        if error.status == NOT_FOUND:
            raise
    condition = {"condition": "not-running"}
    await engine.call("POST", f"/containers/{name}/wait", condition, timeout=END_TIMEOUT)


async def _answer(held: Connection, token: str) -> str:
    said = bytearray()
    async for _, data in frames.split(held.read):
        said += data
        if b"\n" in said and said.startswith(token.encode()):
            return said.partition(b"\n")[0].decode().rpartition(" ")[2]
        if len(said) > 4096:
            break
    text = said.decode(errors="replace").strip()
    raise RuntimeFault(
        f"the container ended at once: {text or 'it said nothing'}",
        remedy="use an image that has a working `sh` on its PATH",
    )
