"""`docker stop`, `kill` and `rm` of NanoClaw's containers: they return when nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from claw_core.errors import ClawError, TeardownFailed
from claw_core.ledger import Ledger
from claw_core.statedir import default_state_directory
from claw_core.tasks import in_thread
from claw_core.teardown import Outcome
from claw_nanoclaw.shim import arguments
from claw_nanoclaw.shim.answers import absent
from claw_nanoclaw.shim.records import Record, Records, instances, released

PATIENCE: Final = 60.0
"""Seconds that a client has to tear its instance down, beside the grace that is asked for."""


def end(verb: str, words: Sequence[str], root: str) -> int:
    """Answer `docker stop|kill|rm NAME...`.

    The agent gets no grace within: as PID 1 of a container of Docker's it would ignore the signal
    until it is over, and claw ends it at once.

    Raises:
        ConfigError: an option that is not supported.
        ClawError: a name is not that of a container of this installation; none was stopped.
        TeardownFailed: it could not be seen to be gone.
    """
    given, names = arguments.options(
        verb,
        words,
        {"-t": "--time", "-f": "--force", "-s": "--signal", "-v": "--volumes"},
        frozenset({"--force", "--volumes"}),
        frozenset({"--time", "--timeout", "--signal"}),
    )
    records = Records()
    known = {record.name: record for record in records.all() if record.root == root}
    for name in names:
        if name not in known:
            raise absent(name)
        if verb == "rm" and "--force" not in given and records.alive(known[name]):
            raise ClawError(f"the container {name} is running", remedy=f"docker stop {name}")
    for name in names:
        asyncio.run(gone(known[name], records))
        print(name)  # noqa: T201 - this is a command
    return 0


async def gone(record: Record, records: Records) -> None:
    """Return when neither the client of a record nor anything of its instance is there.

    Raises:
        TeardownFailed: it could not be seen to be gone in time.
    """
    left = "its client does not end"
    try:
        async with asyncio.timeout(PATIENCE):
            if not await in_thread(_ended, record, records):
                await _unlocked(records.path(record))
            ledger = await in_thread(Ledger.open, default_state_directory())
            while found := await in_thread(instances, record, ledger):
                left = f"{found[0].name} is still there"
                await _unlocked(found[0].path)  # the warden may be at it already
                outcomes = await _reaped(ledger)
                failed = [one.error for one in outcomes if one.name == found[0].name and one.error]
                if failed:
                    raise _still(record, failed[0])
    except TimeoutError:
        raise _still(record, left) from None
    records.forget(record)


async def _reaped(ledger: Ledger) -> list[Outcome]:
    """Tear down what dead owners have left."""
    from claw_core.reaper import Reaper  # a client that ends by itself leaves nothing
    from claw_core.registry import Registry

    return await Reaper(ledger, Registry().resolve).reap(PATIENCE)


def _ended(record: Record, records: Records) -> bool:
    """Ask its client to end, if it lives; whether it has ended already."""
    if not hasattr(os, "pidfd_open"):
        if records.alive(record):
            os.kill(record.process, signal.SIGTERM)
        return False
    try:
        process = os.pidfd_open(record.process)
    except ProcessLookupError:
        return True
    try:
        # It holds its lock, so the number is still its own, and now we hold on to the process.
        if not records.alive(record):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)
    return False


async def _unlocked(path: Path) -> None:
    """Return when nobody holds the lock of a file; may be cancelled at any time."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        released(path)
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(event.set)

    # A thread of a pool would keep this process until the lock is free.
    threading.Thread(target=wait, name="claw-wait", daemon=True).start()
    await event.wait()


def _still(record: Record, why: str) -> TeardownFailed:
    return TeardownFailed(
        f"{record.name} is not gone: {why}",
        phase="teardown",
        remedy="see `claw ps`; `claw reap` tries again",
    )
