"""A payload that writes to a mount while it lives: the witness that no listing can bribe."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import attrs

from claw_core.model import Mount
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.verdict import Broken

PERIOD: Final = 0.05
"""Seconds between two beats."""
WINDOW: Final = 8 * PERIOD
"""Seconds for which a heart must stand still."""
_PATIENCE: Final = 15.0

_STOP: Final = "stop"
_PROGRAM: Final = f"""
beat='trap "" TERM HUP INT
while [ ! -e "${{0%/*}}/{_STOP}" ] && echo >> "$0" || exit; do sleep {PERIOD}; done'
for number in 1 2; do (sh -c "$beat" "$1/$number" < /dev/null > /dev/null 2>&1 &) ; done
if command -v setsid > /dev/null
then (setsid sh -c "$beat" "$1/3" < /dev/null > /dev/null 2>&1 &)
fi
"""
"""Daemons that are deaf to every polite request, one of them in a session of its own."""


@attrs.frozen
class Heart:
    """The heartbeat of one instance.

    Attributes:
        directory: where it shows, on the host.
        case: says whether, and where, an instance can see that.
    """

    directory: Path
    case: Case

    @classmethod
    def make(cls, case: Case, name: str) -> Heart:
        """A heart that does not beat yet."""
        directory = case.directory / name
        directory.mkdir()
        directory.chmod(0o777)  # the instance's user may be any
        return cls(directory, case)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What the instance has to be made with."""
        if not self.case.mounts:
            return ()
        inside = self.case.inside(self.directory)
        return (Mount(self.directory, inside, writable=True, authorised=True),)

    def command(self, then: str) -> tuple[str, ...]:
        """A command that starts daemons and then runs a line of shell."""
        place = self.case.inside(self.directory) if self.case.mounts else "/tmp"  # noqa: S108
        return ("sh", "-c", f"{_PROGRAM}\n{then}", "sh", place)

    def forever(self) -> tuple[str, ...]:
        """A command that says `ready`, and ends as little as its daemons do."""
        return self.command('echo ready; exec sh -c "$beat" "$1/0"')

    def count(self) -> int:
        """Beats so far."""
        return sum(path.stat().st_size for path in self.directory.iterdir())

    async def begins(self) -> None:
        """Wait until all daemons beat.

        Raises:
            Broken: they do not.
        """
        limit = time.monotonic() + _PATIENCE
        while self.case.mounts and not all(
            (self.directory / number).exists() for number in ("1", "2")
        ):
            if time.monotonic() > limit:
                raise Broken("its command never wrote to its writable mount", hook="execute")
            await asyncio.sleep(PERIOD / 5)

    @staticmethod
    def stop_all(directory: Path) -> None:
        """Let the hearts below a directory end that a runtime forgets; on a mount they see it."""
        for beats in directory.glob("*/[0-3]"):
            beats.with_name(_STOP).touch()

    async def stopped(self) -> bool:
        """Whether it stands still, seen for many periods."""
        before = self.count()
        await asyncio.sleep(WINDOW)
        return self.count() == before
