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
from claw_runtime_tart.cli import Tart
from claw_runtime_tart.vms import FILES, Directory

STOP_SECONDS: Final = 5
"""Seconds that Tart gives a machine to stop before it kills it."""
PATIENCE: Final = 40.0
"""Seconds that its processes have to end; core makes other attempts."""
DELETE_PATIENCE: Final = 2.0
"""Seconds of asking Tart to delete what nobody runs, until its directory is removed without."""

_STOPPED = failpoints.declare("tart.stopped", "no process runs the machine")
_DELETED = failpoints.declare("tart.deleted", "nothing is left of the machine")


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
        await self.stop()
        failpoints.hit(_STOPPED)
        await self._delete()
        failpoints.hit(_DELETED)

    async def stop(self) -> None:
        """See that no process runs it: asked to stop once, and killed when it does not.

        Raises:
            TeardownFailed: some process does.
        """
        directory = Directory(self.tart.home)
        until = time.monotonic() + PATIENCE
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
                    self._tell(f"tart stop: {error.message}")
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

    async def _delete(self) -> None:
        """Delete it; what Tart does not know, or cannot delete, is removed by its path."""
        directory = Directory(self.tart.home)
        configuration = directory.path(self.name) / FILES[0]
        until = time.monotonic() + DELETE_PATIENCE
        pause = 0.05
        while await in_thread(configuration.exists):
            try:
                await self.tart.call("delete", self.name, host=self.host, mutates=True)
            except RuntimeFault as error:
                self._tell(f"tart delete: {error.message}")
                break
            if not await in_thread(configuration.exists) or time.monotonic() > until:
                break
            await self.stop()
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)
        await in_thread(directory.remove, self.name)

    def _tell(self, text: str) -> None:
        if self.host is not None:
            self.host.progress(text)
