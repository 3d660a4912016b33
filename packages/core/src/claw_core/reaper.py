"""Tears down what dead owners left behind; forgets an instance only when its absence was seen."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from claw_core import failpoints, vfs
from claw_core.entry import Entry, held
from claw_core.errors import ClawError
from claw_core.host import Host
from claw_core.intent import Intent
from claw_core.lease import Lease
from claw_core.ledger import Ledger
from claw_core.locks import InFlight
from claw_core.model import INSTANCE_PREFIX, Instance, Spec
from claw_core.tasks import in_thread
from claw_core.teardown import ATTEMPT_TIMEOUT, Backend, Outcome, backoff, destroy, quarantine

Resolve: TypeAlias = Callable[[str, Mapping[str, Any]], Backend]
"""Make a runtime from its name and settings; may raise PluginError or UnknownRuntime."""
Intention: TypeAlias = Literal["delete", "keep", "adopt", "repair"]

CLAIMS: Final = 128
"""Entries held at a time; each costs up to two open files."""
CALLS: Final = 8
"""Backends at work at a time."""
_DONE: Final = frozenset({"gone", "alive", "held", "unreadable"})
"""Results that another reap could not change."""

_CLAIMED = failpoints.declare("reaper.claimed", "a dead owner's instance is ours")


@attrs.frozen
class Plan:
    """What a reap would do with one instance.

    Attributes:
        name: name of the instance, or its file where even that is damaged.
        runtime: name of its runtime, where known.
        result: `delete`; `keep`; `adopt`: delete if asked to adopt; `repair`: its entry is damaged.
        error: why.
    """

    name: str
    runtime: str | None
    result: Intention
    error: str


@attrs.frozen(eq=False)
class _Turn:
    """The limits of one reap."""

    until: float
    chosen: frozenset[str]
    claims: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(CLAIMS))
    calls: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(CALLS))


@attrs.frozen(eq=False)
class Reaper:
    """Reaps one ledger; any number of reapers, in any number of processes, may work at a time.

    Args:
        ledger: where the entries are.
        resolve: makes a runtime from its name and settings.
        backends: names and settings of runtimes to search for unclaimed instances, beside those
            that the ledger mentions.
    """

    ledger: Ledger
    resolve: Resolve
    backends: Sequence[tuple[str, Mapping[str, Any]]] = ()
    attempt_timeout: float = ATTEMPT_TIMEOUT

    async def reap(
        self, deadline: float = 120.0, *, adopt: bool = False, chosen: Collection[str] = ()
    ) -> list[Outcome]:
        """Tear down what belongs to dead owners, and say what became of every entry.

        Cancelling it, or killing it, leaves every entry as it is for the next reaper.

        Args:
            deadline: seconds after which no new attempt is made.
            adopt: first make entries for instances of ours that the ledger does not know.
            chosen: names of instances: these alone, also while they are kept on purpose.

        Raises:
            LedgerUnavailable: the ledger cannot be read, or an adopted entry cannot be written.
        """
        until = vfs.monotonic() + deadline
        if adopt:
            for unclaimed in await self._unclaimed():
                await in_thread(self._adopt, *unclaimed)
        entries = _those(await in_thread(self.ledger.scan), chosen)
        turn = _Turn(until, frozenset(chosen))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._entry(entry, turn)) for entry in entries]
        return [task.result() for task in tasks]

    async def plan(self, chosen: Collection[str] = ()) -> list[Plan]:
        """Say what `reap(adopt=True)` would delete and why, without any side effect.

        Args:
            chosen: as for `reap`; then nothing would be adopted.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        entries = _those(await in_thread(self.ledger.scan, sweep=False), chosen)
        plans = [_planned(entry, chosen) for entry in entries]
        if chosen:
            return plans
        for name, runtime, _ in await self._unclaimed(plans):
            why = "carries our install id, but the ledger does not know it"
            plans.append(Plan(name, runtime, "adopt", why))
        return plans

    async def _entry(self, entry: Entry, turn: _Turn) -> Outcome:
        name = entry.name or entry.path.name
        if entry.alive:
            return Outcome(name, entry.runtime, "alive")
        if entry.intent is None:
            return Outcome(name, None, "unreadable", entry.error)
        runtime = entry.intent.runtime
        try:
            async with turn.claims:
                lease = await self._claim(entry, turn.until)
                if isinstance(lease, Outcome):
                    return lease
                with lease:
                    failpoints.hit(_CLAIMED)
                    if name not in turn.chosen and held(lease.state, lease.detail):
                        return Outcome(name, runtime, "held")
                    return await self._destroy(lease, turn)
        except ClawError as error:  # of the ledger: one entry's trouble never stops the others
            return Outcome(name, runtime, "quarantined", str(error))

    async def _claim(self, entry: Entry, until: float) -> Lease | Outcome:
        """Take over the lease; wait while the dead owner's processes are at work."""
        assert entry.intent is not None
        name, runtime = entry.intent.name, entry.intent.runtime
        for attempt in range(1_000_000):
            error = "another reaper has it"
            try:
                lease = self.ledger.claim(entry)
                if lease is not None:
                    return lease
                if not vfs.exists(entry.path):
                    return Outcome(name, runtime, "gone")
                patience = 3  # a mere look by another process has it for some microseconds
            except InFlight as in_flight:
                error, patience = in_flight.message, 1_000_000
            pause = backoff(attempt, cap=1.0) / 10
            if attempt >= patience or vfs.monotonic() + pause >= until:
                return Outcome(name, runtime, "busy", error)
            await asyncio.sleep(pause)
        raise AssertionError

    async def _destroy(self, lease: Lease, turn: _Turn) -> Outcome:
        intent = lease.intent
        try:
            backend = self.resolve(intent.runtime, intent.settings)
        except Exception as error:  # noqa: BLE001 - a third party's failure is recorded, not ours
            return await quarantine(lease, error)
        spec = Spec(group=intent.group, image=intent.image)
        return await destroy(
            backend,
            Instance(lease.name, spec, Host(lease, intent.runtime)),
            lease,
            deadline=turn.until - vfs.monotonic(),
            settle=intent.settle,
            patient=True,
            attempt_timeout=self.attempt_timeout,
            calls=turn.calls,
        )

    async def _unclaimed(
        self, known: Iterable[Plan] = ()
    ) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Find instances of ours without an entry."""
        install = self.ledger.install
        places: dict[str, tuple[str, Mapping[str, Any]]] = {}
        mentioned = [
            (entry.intent.runtime, entry.intent.settings)
            for entry in await in_thread(self.ledger.scan, sweep=False)
            if entry.intent
        ]
        for name, settings in (*self.backends, *mentioned):
            places.setdefault(f"{name} {sorted(settings.items())!r}", (name, settings))
        found: dict[str, tuple[str, str, Mapping[str, Any]]] = {}
        for runtime, settings in places.values():
            try:
                async with asyncio.timeout(self.attempt_timeout):
                    names = await self.resolve(runtime, settings).list_instances(install)
            except Exception:  # noqa: BLE001, S112 - what cannot be listed cannot be adopted
                continue
            for name in names:
                if name.startswith(f"{INSTANCE_PREFIX}-{install}-"):
                    found.setdefault(name, (name, runtime, settings))
        # Scanned after listing: an entry is there before its instance, so what a live owner
        # is creating meanwhile is never taken for unclaimed.
        claimed = {entry.name for entry in await in_thread(self.ledger.scan, sweep=False)}
        claimed.update(plan.name for plan in known)
        return [one for name, one in sorted(found.items()) if name not in claimed]

    def _adopt(self, name: str, runtime: str, settings: Mapping[str, Any]) -> None:
        """Make an entry for an instance that has none, as of an owner that is dead."""
        install = self.ledger.install
        tail = name.removeprefix(f"{INSTANCE_PREFIX}-{install}-")
        own = Intent.new(install, runtime, settings)
        adopted = attrs.evolve(own, identity=tail + own.identity[len(tail) :])
        self.ledger.acquire(adopted).abandon()


def _those(entries: list[Entry], chosen: Collection[str]) -> list[Entry]:
    return [entry for entry in entries if not chosen or entry.name in chosen]


def _planned(entry: Entry, chosen: Collection[str]) -> Plan:
    name, runtime = entry.name or entry.path.name, entry.runtime
    if entry.alive:
        return Plan(name, runtime, "keep", "its owner, or a reaper, is alive")
    if entry.intent is None:
        return Plan(name, runtime, "repair", entry.error or "its entry is damaged")
    if held(entry.state, entry.detail):
        if name in chosen:
            return Plan(name, runtime, "delete", "it is kept on purpose, and was named")
        return Plan(name, runtime, "keep", "kept on purpose, and its time is not over")
    return Plan(name, runtime, "delete", f"its owner is dead (state: {entry.state})")


async def exhaust(reaper: Reaper, deadline: float, owner: int | None = None) -> bool:
    """Reap once, and return whether another reap would find nothing to do.

    Args:
        reaper: what reaps.
        deadline: as for `Reaper.reap`.
        owner: a process that is known to end; while it has a lease, there is something to do.

    Raises:
        LedgerUnavailable: as `Reaper.reap`.
    """
    outcomes = await reaper.reap(deadline)
    if not all(outcome.result in _DONE for outcome in outcomes):
        return False
    # What was alive may be so no more: another reaper had it, and has failed. And the kernel closes
    # a dying process's descriptors one by one: its lifeline may be gone while its leases are not.
    # The pid only decides whether to look again.
    return not any(
        entry.reapable or (entry.alive and owner is not None and entry.owner == owner)
        for entry in await in_thread(reaper.ledger.scan)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Reap everything in a state directory; 0 when nothing is left to do, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m claw_core.reaper", description=main.__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the state directory")
    parser.add_argument("--deadline", type=float, default=120.0, help="seconds (default 120)")
    parser.add_argument("--owner", type=int, help="process whose instances are not yet to be alive")
    options = parser.parse_args(arguments)
    from claw_core.registry import Registry

    try:
        ledger = Ledger.open(options.state, create=False)
        reaper = Reaper(ledger, Registry().resolve)
        done = asyncio.run(exhaust(reaper, options.deadline, options.owner))
    except ClawError:
        # Deleted by its user, with every entry: not to be made again by a reaper.
        return 1 if options.state.exists() else 0
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
