"""Keeps the disk of a machine: as an image that others start from, or for inspection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

from claw_core import failpoints
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import Audit, SnapshotTarget
from claw_core.tasks import in_thread
from claw_runtime_tart import returning
from claw_runtime_tart.cloning import Cloner
from claw_runtime_tart.ending import Ending
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.vms import Directory

AUDITS: Final = "claw-snapshot-"
"""What the names of machines begin with that are kept for inspection."""
UNFINISHED: Final = "-image"
"""What follows an instance's name while its image is not in its place; it ends with that."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,50}")


_PRE_SAVE = failpoints.declare("tart.pre-save", "the image is whole, and not in its place")
_SAVED = failpoints.declare("tart.saved", "the image is in its place")


@attrs.frozen
class Saving:
    """Saves one stopped machine.

    Args:
        cloner: of the instance.
        name: of the machine.
    """

    cloner: Cloner
    name: str

    async def save(self, target: SnapshotTarget, identity: Identity | None) -> str:
        """Clone the machine to its target, and return the name of that.

        Args:
            target: what it shall be; an image of the same name is replaced in one step.
            identity: what is to be remembered of the image.

        Raises:
            ConfigError: Tart has no such names.
            RuntimeFault: nothing was saved, and what was there still is.
        """
        if isinstance(target, Audit):
            label = re.sub(r"[^a-z0-9]+", "-", target.label.lower()).strip("-")[:20] or "audit"
            name = f"{AUDITS}{label}-{self.name.rpartition('-')[2]}"
            await self.cloner.clone(self.name, name)
            return name
        if not _NAME.fullmatch(target.name) or target.name.startswith("claw-"):
            raise ConfigError(
                f"an image of Tart cannot be named {target.name!r}",
                remedy="use lower-case letters, digits, - and _, and do not begin with claw-",
            )
        unfinished = f"{self.name}{UNFINISHED}"
        await self.cloner.clone(self.name, unfinished)
        directory = Directory(self.cloner.tart.home)
        path = directory.path(unfinished)
        try:
            if identity is not None:
                await in_thread(identity.save, path)
            if await in_thread(directory.holder, target.name) is not None:
                raise RuntimeFault(
                    f"the image {target.name} is running", remedy=f"tart stop {target.name}"
                )
            failpoints.hit(_PRE_SAVE)
            await in_thread(_place, path, directory.path(target.name))
            failpoints.hit(_SAVED)
        except OSError as error:
            raise RuntimeFault(f"cannot save the image: {error}") from error
        finally:
            await Ending(self.cloner.tart, self.cloner.host, unfinished).end()
        return target.name


def _place(path: Path, target: Path) -> None:
    """Give an image its name, in the place of one that has it; blocks."""
    if target.exists():
        returning.swap(path, target)
    else:
        path.rename(target)
