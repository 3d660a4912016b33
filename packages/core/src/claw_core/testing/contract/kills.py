"""Checks with real owners and real SIGKILLs: whenever they die, the next reaper finds it all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from claw_core.capture import Capture
from claw_core.ledger import Ledger
from claw_core.model import IO, Assessment, Command, Resources, Spec
from claw_core.reaper import Reaper
from claw_core.testing.contract.heart import WINDOW, Heart
from claw_core.testing.contract.stage import Stage, made
from claw_core.testing.contract.verdict import Broken, about

if TYPE_CHECKING:
    from claw_core.testing.contract.bench import Bench

MOMENTS: Final = (
    "enter prepare",
    "leave prepare",
    "enter start",
    "leave start",
    "enter execute",
    "beating",
    "leave execute",
    "enter teardown",
    "leave teardown",
)
"""When an owner is killed: before and after every effect."""
BOUNDS: Final = Resources(memory=1 << 28, processes=64)
BATCH: Final = 25
"""Owners that are killed before a reaper is called."""


@about("teardown")
async def own(stage: Stage, heart: str, *, bounded: bool = False) -> None:
    """An owner goes through a whole life."""
    beating = Heart(stage.case.directory / heart, stage.case)
    bounds = BOUNDS if bounded else Resources()
    live = await stage.claimed(Spec(mounts=beating.mounts, resources=bounds))
    await live.begin()
    command = Command(beating.command("sleep 0.2; exit 0"))
    work = asyncio.create_task(
        live.runtime.execute(live.instance, command, IO(None, Capture(), Capture()))
    )
    await beating.begins()
    stage.say("beating")
    await work
    await live.end()


@about("teardown")
async def reap(stage: Stage, seconds: float) -> None:
    """A reaper tears down whatever dead owners left."""
    await _reaped(stage, seconds)


@about("teardown")
async def reap_twice(stage: Stage, seconds: float) -> None:
    """Reapers that meet do not disturb each other."""
    await asyncio.gather(_reaped(stage, seconds), _reaped(stage, seconds))


@about("list_instances")
async def look(stage: Stage) -> None:
    """A look at the listing, told instance by instance."""
    for name in await stage.runtime.list_instances(stage.ledger.install):
        stage.say(f"listed {name}")


@about("teardown")
def an_owner_may_be_killed_at_any_hook(bench: Bench) -> None:
    """Whenever between two hooks its owner is killed, an instance is gone after the next reap."""
    hearts = []
    for moment in MOMENTS:
        heart = Heart.make(bench.case, moment.replace(" ", "-"))
        _own(bench, heart, moment)
        hearts.append(heart)
    _expect_nothing(bench, hearts, elsewhere=False)


@about("teardown")
def an_owner_may_be_killed_at_any_time(bench: Bench) -> None:
    """Whenever its owner is killed, inside of a hook too, an instance is gone after a reap."""
    chance = random.Random(bench.case.seed)  # noqa: S311
    reach = _duration(bench)
    for start in range(0, bench.kills, BATCH):
        hearts = []
        for number in range(start, min(bench.kills, start + BATCH)):
            heart = Heart.make(bench.case, f"heart-{number}")
            child = bench.start(own, heart=heart.directory.name)
            if not child.until("enter prepare", bench.case.check_timeout):
                bench.judge(child, in_time=False)
            # Every other one early: creation is where most can go wrong.
            time.sleep(chance.uniform(0, reach / 4 if number % 2 else reach))
            child.kill()
            hearts.append(heart)
        _expect_nothing(bench, hearts, elsewhere=False)


@about("teardown")
def a_stranger_can_tear_it_down(bench: Bench) -> None:
    """Teardown works from the ledger entry alone, in an environment that is not the owner's."""
    heart = Heart.make(bench.case, "heart")
    _own(bench, heart, "beating")
    _expect_nothing(bench, [heart], elsewhere=True)


@about("teardown")
def a_reaper_may_be_killed_too(bench: Bench) -> None:
    """A reaper that is killed, before or after a teardown, is followed by others who finish it."""
    hearts = [Heart.make(bench.case, f"heart-{number}") for number in "123"]
    for heart in hearts:
        _own(bench, heart, "beating")
    for moment in ("enter teardown", "leave teardown"):
        child = bench.start(reap, stop=moment, seconds=bench.case.hook_timeout)
        bench.judge(child, in_time=child.end(bench.case.check_timeout), killed=True)
    bench.ask(reap_twice, seconds=bench.case.hook_timeout)
    _expect_nothing(bench, hearts, elsewhere=False)


@about("assess")
def what_dies_with_its_owner_does(bench: Bench) -> None:
    """An instance of which that is said ends with its owner, without a reaper."""
    for bounded in bench.ask(dies_with_owner).said("dies"):
        for moment in ("leave prepare", "leave start", "beating"):
            heart = Heart.make(bench.case, f"{bounded}-{moment.replace(' ', '-')}")
            _own(bench, heart, moment, bounded=bounded == "bounded")
            limit = time.monotonic() + bench.case.hook_timeout
            while listed := bench.ask(look).said("listed"):
                if time.monotonic() > limit:
                    raise Broken(
                        f"its owner was killed at `{moment}` {bench.case.hook_timeout:g} s ago, "
                        f"nobody reaps, and {', '.join(listed)} are listed"
                    )
            _expect_still([heart])
    _expect_nothing(bench, [], elsewhere=False)


@about("assess")
async def dies_with_owner(stage: Stage) -> None:
    """Which instances are said to end with their owner, with bounds and without."""
    heart = stage.heart("asked")
    for word, bounds in (("free", Resources()), ("bounded", BOUNDS)):
        spec = Spec(image=stage.case.image, mounts=heart.mounts, resources=bounds)
        answer = await stage.runtime.assess(spec)
        if isinstance(answer, Assessment) and answer.dies_with_owner:
            stage.say(f"dies {word}")


async def _reaped(stage: Stage, seconds: float) -> None:
    ledger = Ledger.open(stage.case.state)

    def resolve(name: str, settings: Any) -> Any:
        assert name == stage.case.runtime
        return made(stage.case, settings, stage.say)

    for outcome in await Reaper(ledger, resolve).reap(seconds):
        if outcome.result in {"quarantined", "limbo", "unreadable"}:
            raise Broken(f"a reaper could not finish {outcome.name}: {outcome.error}")
        stage.say(f"{outcome.result} {outcome.name}")


def _own(bench: Bench, heart: Heart, moment: str, *, bounded: bool = False) -> None:
    """Let an owner live until a moment, at which it is killed."""
    child = bench.start(own, stop=moment, heart=heart.directory.name, bounded=bounded)
    bench.judge(child, in_time=child.end(bench.case.check_timeout), killed=True)


def _duration(bench: Bench) -> float:
    """Seconds from the first effect of an owner to the last."""
    heart = Heart.make(bench.case, "measured")
    child = bench.start(own, heart=heart.directory.name)
    reached = child.until("enter prepare", bench.case.check_timeout)
    started = time.monotonic()
    bench.judge(child, in_time=reached and child.end(bench.case.check_timeout))
    return time.monotonic() - started


def _expect_nothing(bench: Bench, hearts: Iterable[Heart], *, elsewhere: bool) -> None:
    """Reap, and see that nothing is left and nothing comes.

    Raises:
        Broken: something is, or does.
    """
    limit = time.monotonic() + bench.case.check_timeout
    while True:
        child = bench.ask(reap, elsewhere=elsewhere, seconds=bench.case.hook_timeout)
        if not child.said("busy") and not child.said("alive"):
            break
        if time.monotonic() > limit:
            raise Broken(f"a reaper must wait for {', '.join(child.said('busy'))}", hook="prepare")
    if listed := bench.ask(look).said("listed"):
        raise Broken(f"after a reap {', '.join(listed)} are listed")
    _expect_still(hearts)
    time.sleep(bench.case.late)
    if listed := bench.ask(look).said("listed"):
        raise Broken(f"after a reap {', '.join(listed)} came to light", hook="prepare")


def _expect_still(hearts: Iterable[Heart]) -> None:
    """See that no payload writes any more.

    Raises:
        Broken: one does.
    """
    before = [(heart, heart.count()) for heart in hearts]
    time.sleep(WINDOW)
    for heart, count in before:
        if heart.count() != count:
            raise Broken(
                f"nothing is listed, and an instance whose owner died at `{heart.directory.name}`"
                " writes to its mount",
                hook="list_instances",
            )


CHECKS: Final = (
    an_owner_may_be_killed_at_any_hook,
    an_owner_may_be_killed_at_any_time,
    a_stranger_can_tear_it_down,
    a_reaper_may_be_killed_too,
    what_dies_with_its_owner_does,
)
