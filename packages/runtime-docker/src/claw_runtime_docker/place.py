"""A running container, as commands see it: what runs in it, and what else can be run there."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import attrs

from claw_core.errors import RuntimeFault
from claw_runtime_docker.engine import Engine

PATIENCE: Final = 20.0
"""Seconds until what does not end is given up, and its instance with it."""


@attrs.define(eq=False)
class Place:
    """A place where commands run.

    Attributes:
        engine: where it is.
        container: its id.
        keeper: pid, inside, of what holds it alive.
        running: tokens of the commands that run.
        killing: held while everything is killed, so that nothing new is.
        patience: seconds until what does not end is given up.
    """

    engine: Engine
    container: str
    keeper: str
    running: set[str] = attrs.field(factory=set)
    killing: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    patience: float = PATIENCE

    async def inside(self, script: str, *arguments: str) -> int:
        """Run a script of ours in the container, and return its exit code.

        Raises:
            RuntimeFault: it did not end in time.
        """
        engine = self.engine
        body = {"Cmd": ["sh", "-c", script, "sh", *arguments], "AttachStdout": True}
        made = await engine.call("POST", f"/containers/{self.container}/exec", None, body)
        path = f"/exec/{made['Id']}/start"
        stream = await engine.hijack(path, None, {"Detach": False, "Tty": False})
        try:
            async with asyncio.timeout(self.patience):
                while await stream.read():
                    pass
        except TimeoutError:
            raise RuntimeFault("a script of claw's does not end in the container") from None
        finally:
            stream.close()
        return int((await self.ended(made["Id"]))["ExitCode"])

    async def ended(self, execution: str | None) -> Any:
        """Wait until the engine says that a command has ended, and return what it says.

        Raises:
            RuntimeFault: it does not say so in time.
        """
        until = time.monotonic() + self.patience
        pause = 0.001
        while True:
            found = await self.engine.call("GET", f"/exec/{execution}/json")
            if not found["Running"] and found["ExitCode"] is not None:
                return found
            if time.monotonic() > until:
                raise RuntimeFault("the command's output has ended, and the command has not")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    async def alive(self) -> bool:
        """Whether the container takes commands: its state is told later than its commands' ends."""
        try:
            return await self.inside(":") == 0
        except RuntimeFault:
            return False
