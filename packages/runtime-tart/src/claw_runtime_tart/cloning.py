"""Clones: a new machine from an image, or an image from a machine; never onto another one.

`tart clone` replaces what has the name already, even a machine that runs
(https://github.com/openai/tart/issues/1120), so names are ours, new, and looked at before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

import attrs

from claw_core import lifeline, locks
from claw_core.errors import DeadlineExceeded, RuntimeFault
from claw_core.host import Host
from claw_core.model import IO, Resources
from claw_core.tasks import in_thread
from claw_runtime_tart import vms
from claw_runtime_tart.cli import Tart, TartError
from claw_runtime_tart.vms import Directory

CLONE_TIMEOUT: Final = 540.0
"""Seconds that a copy may take: on APFS it takes none, elsewhere it is as long as the disk."""
ATTEMPTS: Final = 5
PAUSE: Final = 0.05
"""Seconds between two looks whether another clone has ended."""


@attrs.frozen
class Cloner:
    """Makes clones for one instance.

    Args:
        tart: the command.
        host: of the instance.
    """

    tart: Tart
    host: Host

    async def clone(self, source: str, name: str) -> None:
        """Make a machine of a new name; a reaper waits while it is being made.

        Raises:
            RuntimeFault: there is none of this name now.
        """
        directory = Directory(self.tart.home)
        async with _alone(self.tart):
            for attempt in range(1, ATTEMPTS + 1):
                if await in_thread(directory.path(name).exists):
                    raise RuntimeFault(
                        f"there is a virtual machine {name} already",
                        remedy=f"see what it is: tart get {name}",
                    )
                done = await self.tart.call(
                    *("clone", source, name),
                    host=self.host,
                    mutates=True,
                    timeout=CLONE_TIMEOUT,
                )
                made = await in_thread(directory.config, name)
                if made and not done.code:
                    return
                error = TartError(done, f"clone {source}")
                if not error.transient or attempt == ATTEMPTS:
                    raise error

    async def pull(self, image: str) -> None:
        """Pull an image of a registry that Tart does not have.

        Raises:
            RuntimeFault: it cannot be pulled.
        """
        if await in_thread(Directory(self.tart.home).image, image) is not None:
            return

        async def tell(data: bytes) -> None:
            if lines := data.decode(errors="replace").split("\n"):
                self.host.progress(f"{image}: {lines[-1] or lines[0]}")

        # CI selects the plain progress of one line a step.
        env = {**self.tart.environment(), "CI": "1"}
        io = IO(None, tell, tell)
        done = await self.host.stream((self.tart.executable, "pull", image), io, env=env)
        if done.code:
            raise RuntimeFault(
                f"cannot pull {image}: {done.errors.decode(errors='replace').strip()}",
                remedy=f"see what this says: tart pull {image}",
            )

    async def personalize(self, source: str, name: str, resources: Resources) -> None:
        """Give a clone what must be its own: a network card, and its share of the host.

        Raises:
            RuntimeFault: Tart does not do that.
        """
        directory = Directory(self.tart.home)
        # What a suspended image goes on from is bound to its card, and to its configuration.
        with contextlib.suppress(FileNotFoundError):
            await in_thread(os.unlink, directory.path(name) / vms.STATE)
        own = (await in_thread(directory.config, name)).get("macAddress")
        path = await in_thread(directory.image, source)
        theirs = (await in_thread(vms.config, path)).get("macAddress") if path else None
        options = []
        if vms.is_remote(source) or own is None or own == theirs:
            options.append("--random-mac")
        if resources.cpus is not None:
            options += ["--cpu", str(max(1, -int(-resources.cpus // 1)))]
        if resources.memory is not None:
            options += ["--memory", str(resources.memory >> 20)]
        if options:
            done = await self.tart.call("set", name, *options, host=self.host, mutates=True)
            if done.code:
                raise TartError(done, "configure the virtual machine")


@contextlib.asynccontextmanager
async def _alone(tart: Tart) -> AsyncIterator[None]:
    """Hold the place of the only clone: concurrent ones of one image disturb each other.

    Raises:
        DeadlineExceeded: others were at it for too long.
        RuntimeFault: Tart's directory cannot be used.
    """
    path = tart.home / ".claw-clone"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = lifeline.open_kept(lambda: os.open(path, flags, 0o600))
    except OSError as error:
        raise RuntimeFault(
            f"cannot use {tart.home}: {error.strerror}",
            remedy="see whether its disk is full, and whose directory it is",
        ) from error
    try:
        try:
            async with asyncio.timeout(CLONE_TIMEOUT):
                while not await in_thread(locks.take, descriptor):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise DeadlineExceeded(
                "other clones did not end in time",
                remedy="see whether a tart clone hangs: ps -Aww | grep 'tart clone'",
            ) from None
        yield
    finally:
        lifeline.close(descriptor)
