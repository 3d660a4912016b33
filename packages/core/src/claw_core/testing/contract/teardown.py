"""Checks of the end of an instance: verified, repeatable, and true to the processes."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from claw_core.capture import Capture
from claw_core.errors import ClawError
from claw_core.model import IO, Command, Spec
from claw_core.testing.contract.stage import Live, Stage
from claw_core.testing.contract.traced import Traced
from claw_core.testing.contract.verdict import Broken, about


@about("teardown")
async def teardown_can_be_repeated(stage: Stage) -> None:
    """Tearing down what is gone already is no error, for whoever does it."""
    live = await stage.claimed()
    await live.begin()
    await live.runtime.teardown(live.instance)
    for runtime in (live.runtime, live.runtime, stage.another()):
        await _again(runtime, live, "gone already")
    await live.end()


@about("teardown")
async def what_was_never_made_can_be_torn_down(stage: Stage) -> None:
    """Tearing down what was never made is no error, for whoever does it."""
    for runtime in (stage.runtime, stage.another()):
        live = await stage.claimed()
        await _again(runtime, live, "never made")
        live.lease.release()
    half = await stage.claimed()
    await half.runtime.prepare(half.instance)
    await _again(half.runtime, half, "prepared and not started")
    await half.end()


@about("teardown")
async def teardowns_may_meet(stage: Stage) -> None:
    """Several teardowns at once end well, and the instance with them."""
    live = await stage.claimed()
    await live.begin()
    runtimes = (live.runtime, live.runtime, stage.another(), stage.another())
    results = await asyncio.gather(
        *(runtime.teardown(live.instance) for runtime in runtimes), return_exceptions=True
    )
    for error in results:
        if isinstance(error, Broken):
            raise error
        if isinstance(error, BaseException):
            raise Broken(f"one of four at once failed: {error}") from error
    if await live.listed():
        raise Broken("after four teardowns at once it is still listed")
    live.lease.release()


@about("teardown")
async def a_cancelled_teardown_can_be_followed_by_another(stage: Stage) -> None:
    """A teardown that is cancelled at any moment leaves what the next one can finish."""
    for pause in (0.0, stage.random.uniform(0, 0.02), stage.random.uniform(0, 0.2)):
        live = await stage.claimed()
        await live.begin()
        work = asyncio.create_task(live.runtime.teardown(live.instance))
        await asyncio.wait({work}, timeout=pause)
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled() and isinstance(error := work.exception(), Broken):
            raise error
        await live.end()


@about("list_instances")
async def what_is_not_listed_does_not_live(stage: Stage) -> None:
    """While anything of an instance lives it is listed, also in the middle of its teardown."""
    heart = stage.heart()
    async with stage.instance(Spec(mounts=heart.mounts)) as live:
        command, io = Command(heart.forever()), IO(None, Capture(), Capture())
        work = asyncio.create_task(live.runtime.execute(live.instance, command, io))
        await heart.begins()
        if not await live.listed():
            raise Broken("its command runs, and it is not listed")
        looking = stage.another()
        ending = asyncio.create_task(live.runtime.teardown(live.instance))
        while live.name in await looking.list_instances(stage.ledger.install):
            if ending.done():
                break
            await asyncio.sleep(0.002)
        if not await heart.stopped():
            raise Broken("it is not listed, and its processes write to a mount")
        await ending
        await asyncio.wait({work}, timeout=stage.case.hook_timeout)
        if not work.done():
            raise Broken("its command's `execute` goes on after the teardown", hook="execute")
        work.exception()


@about("prepare")
async def a_cancelled_creation_can_be_torn_down(stage: Stage) -> None:
    """A creation that is cancelled at any moment leaves nothing that outlives a teardown."""
    longest, swallowed = 0.1, 0
    ending: list[asyncio.Task[None]] = []
    for pause in (None, 0.0, *(stage.random.random() for _ in "123456")):
        live = await stage.claimed()
        began = time.monotonic()
        work = asyncio.create_task(live.begin())
        await asyncio.wait({work}, timeout=None if pause is None else pause * longest)
        if pause is None:
            longest = time.monotonic() - began
        asked = work.cancel()
        await asyncio.wait({work})
        if not work.cancelled() and isinstance(error := work.exception(), Broken | ClawError):
            raise error
        swallowed += asked and not work.cancelled()
        ending.append(asyncio.create_task(live.end_late()))
        if not live.lease.intent.settle:
            await ending[-1]
    await asyncio.gather(*ending)
    # A single time may be `asyncio.wait_for` of Python 3.11, which swallows what comes too late.
    if swallowed > 1:
        raise Broken(
            f"cancelled {swallowed} times in the middle, it went on as if nothing had been"
        )
    await asyncio.sleep(stage.case.late)
    found = await stage.runtime.list_instances(stage.ledger.install)
    if found:
        raise Broken(f"{', '.join(found)} came to light after teardown had said they were gone")


async def _again(runtime: Traced, live: Live, what: str) -> None:
    try:
        await runtime.teardown(live.instance)
    except ClawError as error:
        raise Broken(f"it fails for an instance that is {what}: {error}") from error


CHECKS: Final = (
    teardown_can_be_repeated,
    what_was_never_made_can_be_torn_down,
    teardowns_may_meet,
    a_cancelled_teardown_can_be_followed_by_another,
    what_is_not_listed_does_not_live,
    a_cancelled_creation_can_be_torn_down,
)
