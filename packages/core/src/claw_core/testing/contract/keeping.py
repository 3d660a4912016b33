"""Checks of what is kept on purpose: snapshots for inspection, and instances that are stopped."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final

from claw_core.capture import Capture
from claw_core.host import Host
from claw_core.model import IO, Audit, Command, Instance, Spec
from claw_core.testing.contract.heart import Heart
from claw_core.testing.contract.kills import look
from claw_core.testing.contract.stage import Live, Stage
from claw_core.testing.contract.traced import Traced
from claw_core.testing.contract.verdict import Broken, about

if TYPE_CHECKING:
    from claw_core.testing.contract.bench import Bench

KEPT: Final = Spec(persistent=True)
_MARKER: Final = "kit-marker"


@about("delete_snapshot")
async def a_snapshot_is_listed_until_it_is_deleted(stage: Stage) -> None:
    """A snapshot for inspection is listed, for its install alone, until anybody deletes it."""
    if not stage.runtime.relay.supports("snapshot"):
        return
    async with stage.instance(KEPT) as live:
        label = f"claw-kit-{secrets.token_hex(4)}"
        name = await live.runtime.snapshot(live.instance, Audit(label))
    later = stage.another()
    try:
        for runtime in (stage.runtime, later):
            await _expect(runtime, stage.ledger.install, name, live.name)
        await _expect(later, f"{int(stage.ledger.install, 16) ^ 1:08x}")
        for _ in "12":
            await later.delete_snapshot(name)
    except BaseException:
        stage.say(f"snapshot {name}")
        raise
    if await stage.runtime.list_snapshots(stage.ledger.install):
        raise Broken(f"{name} was deleted, and is listed")


@about("search")
async def a_search_finds_what_is_on_the_disk(stage: Stage) -> None:
    """A search finds the files that hold a text, and no others; where there are snapshots."""
    if not stage.runtime.relay.supports("snapshot"):
        return
    async with stage.instance(KEPT) as live:
        home, text = await live.home(), f"kit-{secrets.token_hex(12)}"
        file = f"{home}/{_MARKER}"
        await live.run(f"echo before-{text}-after > {file}; echo other > {home}/other")
        for texts in ((text,), ("kit-is-nowhere", text)):
            if (found := await live.runtime.search(live.instance, texts)) != {file}:
                raise Broken(f"a text is in {file}, and was found in {sorted(found)}")
        if found := await live.runtime.search(live.instance, ("kit-is-nowhere",)):
            raise Broken(f"a text is nowhere, and was found in {sorted(found)}")


@about("stop")
def what_is_stopped_outlives_its_owner(bench: Bench) -> None:
    """What is stopped runs nothing, outlives its owner, and is started again with its disk."""
    heart = Heart.make(bench.case, "heart")
    kept = bench.ask(keep).said("kept")
    if not kept:
        return
    time.sleep(bench.case.late)
    if bench.ask(look).said("listed") != kept:
        raise Broken(f"{kept[0]} was stopped, its owner has ended, and it is not listed")
    before = heart.count()
    bench.ask(enter)
    if heart.count() != before:
        raise Broken("what ran before it was stopped runs again", hook="start")


@about("stop")
async def keep(stage: Stage) -> None:
    """An owner keeps its instance, and ends."""
    if not stage.runtime.relay.supports("stop"):
        return
    heart = Heart(stage.case.directory / "heart", stage.case)
    live = await stage.claimed(Spec(persistent=True, mounts=heart.mounts))
    await live.begin()
    await live.run(f"echo kept > {await live.home()}/{_MARKER}")
    command, io = Command(heart.forever()), IO(None, Capture(), Capture())
    work = asyncio.create_task(live.runtime.execute(live.instance, command, io))
    await heart.begins()
    for _ in "12":
        await live.runtime.stop(live.instance)
    if not await heart.stopped():
        raise Broken("it was stopped, and its processes write to a mount")
    if not await live.listed():
        raise Broken("it was stopped, and is not listed")
    await asyncio.wait({work}, timeout=stage.case.hook_timeout)
    if not work.done():
        raise Broken("its command's `execute` goes on after it was stopped", hook="execute")
    work.exception()
    live.lease.hold(3600)
    stage.say(f"kept {live.name}")


@about("start")
async def enter(stage: Stage) -> None:
    """Somebody else starts what was stopped."""
    (entry,) = stage.ledger.scan()
    lease = stage.ledger.claim(entry)
    assert lease is not None
    spec = Spec(image=lease.intent.image, persistent=True)
    host = Host(lease, stage.case.runtime)
    live = Live(Instance(lease.name, spec, host), lease, stage.another())
    await live.runtime.start(live.instance)
    done = await live.run(f"cat {await live.home()}/{_MARKER}")
    if done.out != b"kept\n":
        raise Broken(f"a file of before it was stopped: {done}", hook="start")
    await live.end()


async def _expect(runtime: Traced, install: str, *wanted: str) -> None:
    """See that a listing shows one snapshot, by its name and its instance's, or none.

    Raises:
        Broken: it does not.
    """
    found = await runtime.list_snapshots(install)
    if [part for one in found for part in (one.name, one.instance)] != [*wanted]:
        raise Broken(
            f"for {install} {sorted(map(str, found))} are listed, where {wanted or 'none'} are due",
            hook="list_snapshots",
        )


CHECKS: Final = (
    a_snapshot_is_listed_until_it_is_deleted,
    a_search_finds_what_is_on_the_disk,
    what_is_stopped_outlives_its_owner,
)
