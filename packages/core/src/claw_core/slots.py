"""Capacity that all of one user's processes share: who asks first gets it first.

A claim is a ticket: a file whose name is its place in the queue, and whose flock says that it
counts. Whatever dies gives its ticket back, and a ticket can be handed to the process that really
uses the capacity. A ticket is good as soon as what the tickets before it claim leaves room for it;
so nobody decides for others, and nobody overtakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from claw_core import durable, failpoints, lifeline, locks
from claw_core.errors import CapacityExhausted, LedgerUnavailable
from claw_core.model import Claim
from claw_core.statedir import unavailable
from claw_core.tasks import in_thread

PAUSE: Final = 0.1
"""Seconds between two looks at the queue: the end of other processes is no event here."""
ENTRANCE_TIMEOUT: Final = 10.0
"""Seconds to wait for the queue's entrance, where others stay for less than a millisecond."""
_SUFFIX: Final = ".ticket"

_POST_TICKET = failpoints.declare("slots.post-ticket", "it stands in the queue for capacity")
_POST_TURN = failpoints.declare("slots.post-turn", "the capacity is its own")


@attrs.define(eq=False)
class Ticket:
    """This process's claim on capacity; `close` gives it back, and so does every kind of death.

    Attributes:
        descriptor: to be inherited by the process that uses the capacity; while anybody has it, the
            claim stands.
    """

    _path: Path
    descriptor: int

    def close(self) -> None:
        """Let go of it, and remove it unless somebody else has it; harmless when repeated."""
        descriptor, self.descriptor = (
            self.descriptor,
            -1,
        )  # its number may be somebody else's by then
        lifeline.close(descriptor)
        with contextlib.suppress(OSError):  # whoever looks next removes it
            _claims(self._path)


@attrs.frozen
class Slots:
    """The queue in a state directory.

    Args:
        state: the state directory.
    """

    state: Path

    @property
    def directory(self) -> Path:
        """Where the tickets are."""
        return self.state / "slots"

    async def take(
        self,
        claims: Iterable[Claim],
        *,
        timeout: float,
        waiting: Callable[[str], None],
    ) -> Ticket:
        """Wait until there is room for all claims, and hold it.

        Args:
            claims: what is needed at once.
            timeout: seconds to wait.
            waiting: told what is being waited for, whenever the place in the queue changes.

        Raises:
            CapacityExhausted: there was no room in time, or never can be; nothing is held.
            LedgerUnavailable: the queue cannot be used.
        """
        claims = tuple(claims)
        for claim in claims:
            if claim.amount > claim.limit:
                raise CapacityExhausted(
                    f"{claim.amount} of {claim.name} are needed, and there are {claim.limit}",
                    remedy="ask for less, or raise the limit",
                )
        until = time.monotonic() + timeout
        try:
            ticket = await self._queue(claims)
            try:
                failpoints.hit(_POST_TICKET)
                await self._turn(ticket, claims, until, waiting)
                failpoints.hit(_POST_TURN)
            except BaseException:
                ticket.close()
                raise
        except OSError as error:
            raise unavailable(f"cannot use {self.directory}", error) from error
        return ticket

    async def _turn(
        self,
        ticket: Ticket,
        claims: tuple[Claim, ...],
        until: float,
        waiting: Callable[[str], None],
    ) -> None:
        """Wait until what stands before a ticket leaves room for it."""
        wanted = " and ".join(claim.name for claim in claims)
        told = 0
        while before := await in_thread(self._before, ticket, claims):
            rest = until - time.monotonic()
            if rest <= 0:
                raise CapacityExhausted(
                    f"no {wanted} became free in time, with {before} runs before this one",
                    remedy="end other runs (see claw ps), or wait longer",
                )
            if before != told:
                waiting(f"waiting for {wanted}: {before} before this run, at most {rest:.0f} s")
                told = before
            await asyncio.sleep(PAUSE)

    async def _queue(self, claims: tuple[Claim, ...]) -> Ticket:
        """Stand at the end of the queue."""
        until = time.monotonic() + ENTRANCE_TIMEOUT
        while (ticket := await in_thread(self._enter, claims)) is None:
            if time.monotonic() > until:
                raise LedgerUnavailable(
                    f"another process keeps {self.directory / 'entrance'} locked",
                    remedy="see whether a claw process is stopped (state T in ps)",
                )
            await asyncio.sleep(0.01)
        return ticket

    def _enter(self, claims: tuple[Claim, ...]) -> Ticket | None:
        """Make a ticket with a higher number than every other one; None while somebody else does.

        Without the lock a number could be given that is lower than one which has decided already.
        """
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, exist_ok=True)
        with lifeline.forbid_fork():
            entrance = os.open(
                self.directory / "entrance", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                try:
                    fcntl.flock(entrance, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
                *_, last = (0, *(int(path.stem) for path in self._tickets()))
                path = self.directory / f"{last + 1:012d}{_SUFFIX}"
                text = json.dumps({claim.name: claim.amount for claim in claims})
                return Ticket(path, _written(path, text.encode()))
            finally:
                os.close(entrance)

    def _before(self, ticket: Ticket, claims: tuple[Claim, ...]) -> int:
        """How many tickets before this one stand in its way; 0 means that it is good."""
        taken: Counter[str] = Counter()
        wanted = {claim.name for claim in claims}
        count = 0
        for path in self._tickets():
            if path.name >= ticket._path.name:  # noqa: SLF001 - of this module
                break
            others = _claims(path)
            if wanted & others.keys():
                taken.update(others)
                count += 1
        fits = all(taken[claim.name] + claim.amount <= claim.limit for claim in claims)
        return 0 if fits else count

    def _tickets(self) -> Iterator[Path]:
        """All tickets, dead ones included, first come first."""
        return iter(sorted(self.directory.glob(f"{'[0-9]' * 12}{_SUFFIX}")))


def _written(path: Path, data: bytes) -> int:
    """Make a ticket, which is never seen without its text or its lock, and return it open."""
    temporary = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # its writer has died: whoever writes here holds the entrance
    descriptor = locks.create_locked(temporary)
    try:
        durable.write_all(descriptor, data)
        temporary.rename(path)
    except BaseException:
        locks.discard(temporary, descriptor)
        raise
    return descriptor


def _claims(path: Path) -> dict[str, int]:
    """What a ticket claims; nothing once it is dead, and then it is removed."""
    descriptor = locks.lock_existing(path)
    if descriptor is not None:
        locks.discard(path, descriptor)
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
