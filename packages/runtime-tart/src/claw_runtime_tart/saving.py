"""Keeps the disk of a machine: as an image that others start from, or for inspection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from claw_core import failpoints
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import Audit, Snapshot, SnapshotTarget, instance_name
from claw_core.tasks import in_thread
from claw_runtime_tart import returning
from claw_runtime_tart.cloning import Cloner
from claw_runtime_tart.ending import Ending
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.vms import Directory

UNFINISHED: Final = "-image"
"""What follows an instance's name while its image is not in its place; it ends with that."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,50}")
_AUDIT: Final = re.compile(r"claw-snapshot-[a-z0-9-]+-([0-9a-f]{8})-([0-9a-f]{12})")
"""The name of a machine for inspection: which install has made it of which instance."""


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
            label = re.sub(r"[^a-z0-9]+", "-", target.slug.lower())[:13].strip("-") or "audit"
            name = f"claw-snapshot-{label}-{self.name.removeprefix('claw-')}"
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


def audits(names: Iterable[str], install: str) -> frozenset[Snapshot]:
    """Those of some machines that are kept for inspection, and were made by an install.

    What one occupies alone nobody can tell: clones share their blocks.
    """
    found = (_AUDIT.fullmatch(name) for name in names)
    return frozenset(
        Snapshot(match[0], instance_name(match[1], match[2]))
        for match in found
        if match and match[1] == install
    )


def require_audit(name: str) -> None:
    """See that a machine is one for inspection, by its name.

    Raises:
        RuntimeFault: it is not, and is none of our business.
    """
    if not _AUDIT.fullmatch(name):
        raise RuntimeFault(
            f"{name} is no snapshot of claw's", remedy="see `claw snapshots list` for their names"
        )


def _place(path: Path, target: Path) -> None:
    """Give an image its name, in the place of one that has it; blocks."""
    if target.exists():
        returning.swap(path, target)
    else:
        path.rename(target)
