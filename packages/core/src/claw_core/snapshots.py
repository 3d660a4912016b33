"""The snapshots for inspection of one user: what is noted of them, and what the runtimes list."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs

from claw_core import failpoints, metadata
from claw_core.config.settings import Retention
from claw_core.errors import ClawError, RuntimeFault
from claw_core.ledger import Ledger
from claw_core.metadata import Metadata
from claw_core.model import Snapshot
from claw_core.relay import Relay
from claw_core.tasks import in_thread

Resolve: TypeAlias = Callable[[str, Mapping[str, Any]], Relay]
"""Make a runtime from its name and settings; may raise PluginError or UnknownRuntime."""
State: TypeAlias = Literal["kept", "unfinished", "missing", "unknown"]

LISTING_TIMEOUT: Final = 30.0
"""Seconds that a runtime has to list its snapshots."""

_DELETED = failpoints.declare("snapshot.deleted", "the backend's listing does not show it")
_FORGOTTEN = failpoints.declare("snapshot.forgotten", "nothing is noted of it any more")


@attrs.frozen
class Kept:
    """One snapshot.

    Attributes:
        known: what is known of it.
        state: `kept`; `unfinished`: it is being taken; `missing`: its runtime does not have it any
            more; `unknown`: that cannot be asked.
        noted: whether there is a file about it; without one it is listed by its runtime alone.
        remark: what a reader should know.
    """

    known: Metadata
    state: State
    noted: bool = True
    remark: str | None = None


@attrs.frozen(eq=False)
class Snapshots:
    """The snapshots of one ledger's install.

    Args:
        ledger: where its state directory is.
        resolve: makes a runtime from its name and settings.
        places: names and settings of runtimes to ask beside those that something is noted of.
    """

    ledger: Ledger
    resolve: Resolve
    places: Sequence[tuple[str, Mapping[str, Any]]] = ()

    async def find(self) -> tuple[list[Kept], list[str]]:
        """Return every snapshot, the newest first, and what is wrong with what is noted.

        What a killed owner has left unfinished is seen to: it is noted as it is, or forgotten.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
            OSError: the same for what is noted.
        """
        noted, problems = await in_thread(metadata.read, self.ledger.state)
        places = {_place(*place): place for place in self.places}
        places |= {_place(one.runtime, one.settings): (one.runtime, one.settings) for one in noted}
        listings = dict(
            zip(places, await asyncio.gather(*map(self._list, places.values())), strict=True)
        )
        names = {(one.runtime, one.name) for one in noted}
        found: list[Kept] = []
        strangers = dict(_strangers(places, listings, names))
        for known in noted:
            listing = listings[_place(known.runtime, known.settings)]
            if known.name is None and not isinstance(listing, ClawError):
                kept = await self._settled(known, strangers)
            else:
                kept = _looked_up(known, listing)
            found += [] if kept is None else [kept]
        found += [Kept(one, "kept", noted=False) for one in strangers.values()]
        found.sort(key=lambda kept: kept.known.taken, reverse=True)
        return found, problems

    async def delete(self, kept: Kept) -> None:
        """Delete a snapshot, see that it is absent, and forget what is known of it.

        Raises:
            ClawError: it may still be there, and is still noted.
            OSError: it is absent, and still noted.
        """
        known = kept.known
        if known.name is not None and kept.state != "missing":
            relay = self.resolve(known.runtime, known.settings)
            await relay.delete_snapshot(known.name)
            if known.name in {one.name for one in await relay.list_snapshots(self.ledger.install)}:
                raise RuntimeFault(
                    f"{known.name} is still there after it was deleted",
                    runtime=known.runtime,
                    phase="delete_snapshot",
                )
            failpoints.hit(_DELETED)
        if kept.noted:
            await in_thread(metadata.forget, self.ledger.state, known)
            failpoints.hit(_FORGOTTEN)

    async def retain(self, limits: Retention) -> list[str]:
        """Delete what is too much, and say of each what was done and why.

        Only what is noted is deleted: what a runtime lists beside that may be anybody's.

        Raises:
            LedgerUnavailable, OSError: as `find`.
        """
        found, _ = await self.find()
        said = []
        for kept, why in excess(found, limits, time.time()):
            try:
                await self.delete(kept)
                said.append(f"the snapshot {kept.known.name} is deleted: {why}")
            except (ClawError, OSError) as error:
                said.append(f"the snapshot {kept.known.name} cannot be deleted ({why}): {error}")
        return said

    async def _list(self, place: tuple[str, Mapping[str, Any]]) -> dict[str, Snapshot] | ClawError:
        try:
            async with asyncio.timeout(LISTING_TIMEOUT):
                relay = self.resolve(*place)
                if not relay.supports("list_snapshots"):
                    return {}
                listed = await relay.list_snapshots(self.ledger.install)
        except ClawError as error:
            return error
        except TimeoutError:
            return RuntimeFault(f"{place[0]} did not list its snapshots in time")
        return {one.name: one for one in listed}

    async def _settled(
        self, known: Metadata, strangers: dict[tuple[str, str], Metadata]
    ) -> Kept | None:
        """See what became of a snapshot whose name was not noted when we looked.

        Its owner notes the name before it removes the instance's entry. So where there is no entry,
        and then still no name, the owner is dead, and what the runtime lists then is all there is.
        """
        state = self.ledger.state
        entries = await in_thread(self.ledger.scan, sweep=False)
        own = [key for key, one in strangers.items() if one.instance == known.instance]
        for key in own:
            del strangers[key]
        if any(entry.name == known.instance for entry in entries):
            return Kept(known, "unfinished", remark="it is being taken")
        again = await in_thread(metadata.find, state, known.file)
        if again is None:
            return None
        listing = await self._list((known.runtime, known.settings))
        if again.name is not None or isinstance(listing, ClawError):
            return _looked_up(again, listing)
        for one in listing.values():
            if one.instance == known.instance:
                known = attrs.evolve(known, name=one.name, size=one.size)
                await in_thread(metadata.write, state, known)
                return _looked_up(known, listing)
        await in_thread(metadata.forget, state, known)
        return None


def excess(found: Iterable[Kept], limits: Retention, now: float) -> Iterator[tuple[Kept, str]]:
    """Which snapshots are too much, and why; never the newest one.

    Args:
        found: all of them, the newest first.
        limits: how many, how old, and how large together.
        now: wall-clock time in seconds since 1970.
    """
    number = size = 0
    for kept in found:
        if not kept.noted or kept.known.name is None:
            continue
        too_old = now - kept.known.taken > limits.max_age
        if kept.state == "missing":
            if too_old:
                yield kept, str(kept.remark)
            continue
        number, size = number + 1, size + (kept.known.size or 0)
        if number == 1:
            continue
        if number > limits.keep:
            yield kept, f"no more than {limits.keep} are kept"
        elif too_old:
            yield kept, f"it is older than {limits.max_age / 86400:g} days"
        elif size > limits.max_disk:
            yield kept, f"together they have more than {limits.max_disk / (1 << 30):g} GiB"


def _place(runtime: str, settings: Mapping[str, Any]) -> str:
    return f"{runtime} {json.dumps(dict(settings), sort_keys=True, default=repr)}"


def _looked_up(known: Metadata, listing: dict[str, Snapshot] | ClawError) -> Kept:
    if isinstance(listing, ClawError):
        return Kept(known, "unknown", remark=listing.message)
    if known.name not in listing:
        return Kept(known, "missing", remark=f"{known.runtime} does not have it any more")
    remark = f"holds a secret, in {', '.join(known.found_in)}" if known.found_in else None
    return Kept(attrs.evolve(known, size=listing[known.name].size), "kept", remark=remark)


def _strangers(
    places: Mapping[str, tuple[str, Mapping[str, Any]]],
    listings: Mapping[str, dict[str, Snapshot] | ClawError],
    names: set[tuple[str, str | None]],
) -> Iterator[tuple[tuple[str, str], Metadata]]:
    """What is listed and not noted."""
    for place, listing in listings.items():
        runtime, settings = places[place]
        for one in () if isinstance(listing, ClawError) else listing.values():
            if (runtime, one.name) not in names:
                yield (
                    (runtime, one.name),
                    Metadata(
                        instance=one.instance,
                        label="",
                        runtime=runtime,
                        settings=settings,
                        group=None,
                        image=None,
                        started=0.0,
                        taken=0.0,
                        name=one.name,
                        size=one.size,
                    ),
                )
