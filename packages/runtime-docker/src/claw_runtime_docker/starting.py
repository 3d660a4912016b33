"""Brings a created container to life: started, told its secrets, and seen to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from claw_core.errors import RuntimeFault
from claw_runtime_docker import frames
from claw_runtime_docker.connection import Connection
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.scripts import secrets_file

START_TIMEOUT: Final = 120.0
"""Seconds that the engine has to start a container."""
READY_TIMEOUT: Final = 60.0
"""Seconds that a started container has to answer."""


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
