"""The end of a virtual machine: stopped, deleted, and seen to be gone, whatever Tart says.

Stopping and deleting are independent: a machine that does not stop is killed, one that does not run
is deleted, and what Tart does not know any more is removed by its path. `tart stop` returns before
the process has ended, and `tart delete` of a machine that runs says in some versions that there
is none; only no directory, no lock and no process are the end.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import attrs

from claw_core import failpoints
from claw_core.errors import RuntimeFault, TeardownFailed
from claw_core.host import Host
from claw_core.tasks import in_thread
from claw_runtime_tart import processes
from claw_runtime_tart.cli import Tart, TartError
from claw_runtime_tart.vms import FILES, Directory

STOP_SECONDS: Final = 5
"""Seconds that Tart gives a machine to stop before it kills it."""
PATIENCE: Final = 40.0
"""Seconds until an attempt gives up; core makes others."""

_STOPPED = failpoints.declare("tart.stopped", "no process runs the machine")
_DELETED = failpoints.declare("tart.deleted", "Tart says that the machine is deleted")


@attrs.frozen
class Ending:
    """Ends one machine.

    Args:
        tart: the command.
        host: of the instance; None for what is none.
        name: of the machine, which is one of ours.
    """

    tart: Tart
    host: Host | None
    name: str

    async def end(self) -> None:
        """Return when nothing is left of it, in whatever state it was.

        Raises:
            TeardownFailed: something is.
        """
        until = time.monotonic() + PATIENCE
        await self.stop(until)
        failpoints.hit(_STOPPED)
        await self._delete(until)
        failpoints.hit(_DELETED)

    async def stop(self, until: float) -> None:
        """See that no process runs it: asked to stop once, and killed when it does not.

        Args:
            until: time, on the monotonic clock, at which this gives up.

        Raises:
            TeardownFailed: some process does.
        """
        directory = Directory(self.tart.home)
        asked = False
        pause = 0.01
        while True:
            holder = await in_thread(directory.holder, self.name)
            running = await processes.of(self.name)
            if holder is None and not running:
                return
            if holder is not None and not asked:
                asked = True
                try:
                    # Exit code 2: it has just stopped. Anything else is seen at the next look.
                    await self.tart.call(
                        *("stop", self.name, "--timeout", str(STOP_SECONDS)),
                        host=self.host,
                        timeout=STOP_SECONDS + 5.0,
                    )
                    continue
                except RuntimeFault as error:
                    if self.host is not None:
                        self.host.progress(f"tart stop: {error.message}")
            processes.kill(running)
            if holder is not None and holder not in running:
                processes.kill([holder])
            if time.monotonic() > until:
                raise TeardownFailed(
                    f"the process of the machine does not end (pid {holder or running})",
                    remedy="see what it waits for; restarting the host ends it",
                )
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    async def _delete(self, until: float) -> None:
        directory = Directory(self.tart.home)
        path = directory.path(self.name)
        pause = 0.05
        while await in_thread(path.exists):
            if not await in_thread((path / FILES[0]).exists):
                # Half deleted: Tart neither lists nor deletes it, and its disk is there.
                await in_thread(directory.remove, self.name)
                continue
            done = await self.tart.call(
                *("delete", self.name), host=self.host, mutates=True, timeout=30.0
            )
            if not await in_thread(path.exists):
                return
            if time.monotonic() > until:
                raise TeardownFailed(
                    str(TartError(done, "delete the virtual machine").message),
                    remedy=f"see why, and then: tart delete {self.name}",
                )
            await self.stop(until)
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)
