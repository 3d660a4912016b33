"""What an agent keeps of a group between its instances: sessions, settings, what it has learned.

It lies in the state directory, one folder per group and agent, in generations of which one is the
current one. What an instance gives back becomes the next generation as a whole, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core import durable
from claw_core.model import Claim
from claw_core.slots import Slots
from claw_core.statedir import unavailable
from claw_core.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

CURRENT: Final = "current"
"""The link to the generation that counts."""
LIMIT: Final = 4 << 30
"""Bytes that an agent may keep of a group."""


@attrs.frozen
class AgentState:
    """The folder of one agent and group.

    Attributes:
        state: the state directory.
        group: the name of the group.
        root: the directory that holds the group, where it has one.
        agent: the name of the agent.
        seed: name -> path of what there is to begin with, as long as nothing was ever kept.
    """

    state: Path
    group: str
    root: Path | None
    agent: str
    seed: Mapping[str, Path] = attrs.field(factory=dict)

    @property
    def folder(self) -> Path:
        """Where the generations are."""
        return self.state / "agents" / self._group / self.agent

    @property
    def _group(self) -> str:
        digest = hashlib.sha256(f"{self.root or ''}\0{self.group}".encode()).hexdigest()
        plain = self.group.replace("-", "").replace("_", "").isalnum() and self.group.isascii()
        return f"{digest[:16]}-{self.group}" if plain and len(self.group) <= 64 else digest[:16]

    @contextlib.asynccontextmanager
    async def alone(self, timeout: float, waiting: Callable[[str], None]) -> AsyncIterator[None]:
        """Hold it for the length of the block: two at once would take each other's sessions away.

        Args:
            timeout: seconds to wait for another run.
            waiting: told what is being waited for.

        Raises:
            CapacityExhausted: another run did not end in time.
            LedgerUnavailable: the state directory cannot be used.
        """
        claim = Claim(f"what {self.agent} keeps for {self._group}")
        ticket = await Slots(self.state).take((claim,), timeout=timeout, waiting=waiting)
        try:
            await in_thread(self._sweep)
            yield
        finally:
            ticket.close()

    def kept(self, name: str) -> Path | None:
        """Where a file or directory is that was kept, or that there is to begin with."""
        if (self.folder / CURRENT).is_symlink():
            path = self.folder / CURRENT / name
        elif name in self.seed:
            path = self.seed[name]
        else:
            return None
        path = path.parent.resolve() / path.name  # whoever packs it follows no link
        return path if path.is_dir() or path.is_file() else None

    @contextlib.asynccontextmanager
    async def generation(self) -> AsyncIterator[Path]:
        """Give an empty directory that replaces what was kept, when the block ends without error.

        Raises:
            LedgerUnavailable: it cannot be made or put in place; what was kept still counts.
        """
        new = self.folder / secrets.token_hex(8)
        try:
            await in_thread(_make, new, self.state)
            yield new
            await in_thread(self._swap, new)
        except OSError as error:
            raise unavailable(f"cannot keep the state of {self.agent}", error) from error
        finally:
            await in_thread(self._sweep)

    def _swap(self, new: Path) -> None:
        """Make a generation the current one: from one moment to the next, also after a crash."""
        _sync(new)
        link = self.folder / f".{CURRENT}-{secrets.token_hex(8)}"
        link.symlink_to(new.name)
        link.rename(self.folder / CURRENT)
        durable.sync_directory(self.folder)

    def _sweep(self) -> None:
        """Remove every generation that does not count, and links of a process that died."""
        if not self.folder.is_dir():
            return
        current = self.folder / CURRENT
        kept = {CURRENT, str(current.readlink())} if current.is_symlink() else {CURRENT}
        for path in self.folder.iterdir():
            if path.name in kept:
                continue
            if path.is_symlink():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)  # what stays is swept the next time


def _make(directory: Path, state: Path) -> None:
    """Make a directory below the state directory, for nobody else."""
    missing = [path for path in (directory, *directory.parents) if path.is_relative_to(state)]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _sync(directory: Path) -> None:
    """Return when every file below is on the medium."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                durable.sync_data(descriptor)
            finally:
                os.close(descriptor)
        durable.sync_directory(folder)
