"""A container that runs, as commands see it: what runs in it, and what else can be run there."""

from __future__ import annotations

import asyncio
from typing import Final, Self

import attrs

from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_runtime_apple.cli import Cli
from claw_runtime_apple.errors import ContainerError, failure

PATIENCE: Final = 20.0
"""Seconds until what does not end is given up, and its instance with it."""
READY_TIMEOUT: Final = 30.0
"""Seconds that a container has to take commands once its first process runs."""

_DONE: Final = "claw done"
_EARLY: Final = ("is not running", "not found")


@attrs.define(eq=False)
class Place:
    """A place where commands run.

    Attributes:
        cli: the command, called on behalf of the instance.
        host: of the instance.
        container: its name.
        keeper: pid, inside, of what holds it alive.
        user: `uid:gid` of commands.
        running: tokens of the commands that run.
        killing: held while everything is killed, so that nothing new is.
        patience: seconds until what does not end is given up.
    """

    cli: Cli
    host: Host
    container: str
    keeper: str
    user: str
    running: set[str] = attrs.field(factory=set)
    killing: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    patience: float = attrs.field(factory=lambda: PATIENCE)

    def as_root(self) -> Self:
        """The same place, for commands of ours that must be root's."""
        return attrs.evolve(self, user="0:0")

    async def inside(self, script: str, *arguments: str) -> bool:
        """Run a script of ours in the container as root, and return whether it succeeded.

        Raises:
            RuntimeFault: it could not be run, or did not end in time.
        """
        # Of an exit code 1 nobody can tell whose it is, so that success is said.
        program = f"trap '[ $? = 0 ] && echo {_DONE}' 0\n{script}"
        argv = ("exec", self.container, "sh", "-c", program, "sh", *arguments)
        done = await self.cli.ask(*argv, timeout=self.patience)
        if _DONE.encode() in done.stdout:
            return True
        if b"Error: " in done.stderr:
            raise failure(done.code, done.stderr, "exec")
        return False

    async def begins(self) -> None:
        """Return when the container takes commands.

        Raises:
            RuntimeFault: it does not in time.
        """
        limit = asyncio.get_running_loop().time() + READY_TIMEOUT
        pause = 0.02
        while True:
            try:
                if await self.inside(":"):
                    return
            except ContainerError as error:
                # The service may learn later than we that it runs.
                if not any(text in error.said for text in _EARLY):
                    raise
            if asyncio.get_running_loop().time() > limit:
                raise RuntimeFault(
                    "the container does not take commands", remedy="see `container system logs`"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)
