"""What is kept of an instance when its session ends: a snapshot of its disk, or the whole of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from claw_core import events, failpoints, vfs
from claw_core.errors import ClawError, NotKept
from claw_core.model import Audit, Instance, When
from claw_core.runs import what
from claw_core.tasks import in_thread

if TYPE_CHECKING:
    from claw_core.entry import Entry
    from claw_core.lease import Lease
    from claw_core.ledger import Ledger
    from claw_core.metadata import Metadata
    from claw_core.relay import Relay
    from claw_core.runs import Record

DAY: Final = 86400.0
SEARCH_TIMEOUT: Final = 300.0
"""Seconds that a runtime has to look for the secrets of a run."""
SHOWN: Final = 20
"""Files with a secret that a message names; the metadata has all of them."""

_INTENDED = failpoints.declare("snapshot.intended", "it is noted, durably, that one is to come")
_TAKEN = failpoints.declare("snapshot.taken", "the backend has the snapshot")
_NOTED = failpoints.declare("snapshot.noted", "what is known of the snapshot is durable")
_PRE_STOP = failpoints.declare("keep.pre-stop", "the backend is about to stop what is kept")
_STOPPED = failpoints.declare("keep.stopped", "nothing of it runs, and its entry does not keep it")
_HELD = failpoints.declare("keep.held", "that it is kept is durable")


@attrs.frozen
class Keeping:
    """What is to be kept, and when.

    Attributes:
        snapshot: when the disk is kept as a snapshot for inspection.
        instance: when the instance itself is kept, stopped, in place of its teardown.
        seconds: for how long that is kept.
    """

    snapshot: When = "never"
    instance: When = "never"
    seconds: float = DAY

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional hooks that it takes."""
        asked = {"snapshot": self.snapshot, "stop": self.instance}
        return tuple(hook for hook, when in asked.items() if when != "never")


def due(when: When, *, failed: bool) -> bool:
    """Whether it is time, for a run that has failed, or has not."""
    return when == "always" or (when == "on-failure" and failed)


async def take(
    relay: Relay,
    instance: Instance,
    target: Audit,
    record: Record,
    secrets: Mapping[str, str],
    state: Path,
    listener: events.Listener,
) -> str:
    """Keep the disk as a snapshot for inspection, with what is known of it beside the ledger.

    Its name is returned, and told to the record. Files that hold a secret of the run are told to
    the listener, and noted.

    Args:
        relay: the runtime.
        instance: what to keep the disk of.
        target: its label.
        record: of the run so far.
        secrets: name -> value of what may not be in it.
        state: the state directory.
        listener: gets a notice of what was found.

    Raises:
        ClawError: there is no snapshot; if one comes to light later, it is noted that it may.
    """
    from claw_core.metadata import Metadata  # most sessions keep nothing

    known = Metadata(
        instance=instance.name,
        label=target.label,
        runtime=relay.name,
        settings=dict(record.route.settings),
        group=record.group,
        image=instance.spec.image,
        started=record.started,
        taken=vfs.wall_clock(),
        exit=record.exit.code if record.exit else None,
        signal=record.exit.signal if record.exit else None,
        error=record.error,
    )
    known = await _searched(relay, instance, known, secrets)
    await in_thread(_note, state, known)
    failpoints.hit(_INTENDED)
    name = await relay.snapshot(instance, target)
    failpoints.hit(_TAKEN)
    known = attrs.evolve(known, name=name, size=await _size(relay, instance, name))
    await in_thread(_note, state, known)
    failpoints.hit(_NOTED)
    record.snapshot = name
    for notice in _found_notices(known):
        listener(notice)
    return name


def resume(ledger: Ledger, entry: Entry) -> Lease:
    """Take over an instance that is kept, so that this process may start it again.

    Raises:
        ClawError: it is not kept any more, or somebody else has it; it stays as it is.
    """
    for _ in range(50):
        lease = ledger.claim(entry)
        if lease is not None and lease.state == "held":
            lease.resume()
            return lease
        if lease is not None:
            lease.abandon()
            break
        time.sleep(0.01)  # a mere look by another process has it for some microseconds
    raise ClawError(
        "somebody else has just opened it, or deletes it",
        instance=entry.name,
        remedy="see `claw ps`",
    )


async def hold(
    relay: Relay, instance: Instance, lease: Lease, seconds: float, deadline: float
) -> None:
    """Stop an instance and let it be kept, disk only; the lease has ended then.

    Killed at any point it leaves an instance that is kept, or one that is torn down.

    Args:
        relay: the runtime.
        instance: what to keep.
        lease: this process's hold on it.
        seconds: for how long it is kept.
        deadline: seconds that the runtime has to stop it.

    Raises:
        ClawError: it is not kept, and must be torn down.
        TimeoutError: the same; it did not stop in time.
    """
    failpoints.hit(_PRE_STOP)
    async with asyncio.timeout(deadline):
        await relay.stop(instance)
    failpoints.hit(_STOPPED)
    await in_thread(lease.hold, seconds)
    failpoints.hit(_HELD)
    lease.abandon()


@contextlib.contextmanager
def kept_or_told(record: Record, phase: str) -> Iterator[None]:
    """Say of a failure of the block that what was to be kept was not.

    Raises:
        NotKept: the block failed.
    """
    try:
        yield
    except Exception as error:
        text = error.message if isinstance(error, ClawError) else str(error)
        failure = NotKept(
            text or "it did not end in time",
            runtime=record.route.runtime,
            phase=phase,
            instance=record.instance,
            cleaned="the instance is torn down all the same",
            remedy=getattr(error, "remedy", None),
        )
        record.error = record.error or what(failure)
        raise failure from error


def snapshot_notice(name: str) -> events.Notice:
    """What to do with a snapshot."""
    return events.Notice(
        f"the disk is kept as {name}; look into it with `claw snapshots open {name}`"
    )


def instance_notice(name: str, wall: float) -> events.Notice:
    """What to do with an instance that is kept until a wall-clock time."""
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(wall))
    return events.Notice(
        f"{name} is kept until {until}; enter it with `claw shell {name}`,"
        f" delete it with `claw reap {name}`"
    )


async def _searched(
    relay: Relay, instance: Instance, known: Metadata, secrets: Mapping[str, str]
) -> Metadata:
    """Note which files hold a secret; that nobody can look is no failure of the snapshot."""
    from claw_core.redaction import traces

    wanted = {name: traces(value) for name, value in secrets.items()}
    names = tuple(name for name, texts in wanted.items() if texts)
    if not names:
        return known
    try:
        async with asyncio.timeout(SEARCH_TIMEOUT):
            found = await relay.search(instance, tuple(sorted(set().union(*wanted.values()))))
    except ClawError as error:
        return attrs.evolve(known, unsearched=instance.host.redact(error.message))
    except TimeoutError:
        return attrs.evolve(known, unsearched=f"it took longer than {SEARCH_TIMEOUT:g} s")
    paths = tuple(sorted(map(instance.host.redact, found)))
    return attrs.evolve(known, searched=names, found_in=paths)


async def _size(relay: Relay, instance: Instance, name: str) -> int | None:
    try:
        listed = await relay.list_snapshots(instance.name.split("-")[1])
    except ClawError:
        return None  # it is there all the same
    return next((one.size for one in listed if one.name == name), None)


def _note(state: Path, known: Metadata) -> None:
    from claw_core import metadata

    try:
        metadata.write(state, known)
    except OSError as error:
        raise ClawError(
            f"nothing can be noted of a snapshot: {error.strerror or error}",
            remedy=f"see that {state} can be written to",
        ) from error


def _found_notices(known: Metadata) -> list[events.Notice]:
    if known.unsearched:
        text = f"{known.name} was not searched for secrets: {known.unsearched}"
        return [events.Notice(text, urgent=True)]
    if not known.found_in:
        return []
    more = len(known.found_in) - SHOWN
    files = ", ".join(known.found_in[:SHOWN]) + (f" and {more} more" if more > 0 else "")
    text = f"{known.name} holds a secret of the run, in {files}; see `claw snapshots delete`"
    return [events.Notice(text, urgent=True)]
