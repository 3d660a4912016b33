"""Checks of how commands end: by themselves, by a signal, by cancellation, by a deadline."""

from __future__ import annotations

import asyncio
from typing import Final

from claw_core.capture import Capture
from claw_core.config.config import Config
from claw_core.config.settings import Settings
from claw_core.errors import DeadlineExceeded, SpentInstance
from claw_core.events import Event, PhaseEnded, PhaseStarted
from claw_core.isolation import Isolation
from claw_core.model import IO, Command, Spec
from claw_core.router import Router
from claw_core.session import Deadlines
from claw_core.testing.contract.heart import Heart
from claw_core.testing.contract.stage import Live, Stage
from claw_core.testing.contract.verdict import ENDS, Broken, about

_CODES: Final = (0, 1, 2, 3, 42, 124, 125, 126, 127, 128, 137, 200, 255)


@about("execute")
async def exit_codes_are_the_commands_own(stage: Stage) -> None:
    """The exit code is the command's own, whatever it is."""
    async with stage.instance() as live:
        for code in _CODES:
            done = await live.run(f"exit {code}")
            if done.exit.code != code:
                raise Broken(f"`exit {code}` gave {done}")
            if done.exit.reason or done.exit.signal:
                raise Broken(f"`exit {code}` is the command's own end, but: {done}")


@about("execute")
async def a_signal_is_told_as_a_shell_does(stage: Stage) -> None:
    """A command that a signal ended gives 128 and its number."""
    async with stage.instance() as live:
        for number in (1, 9, 15):
            done = await live.run(f"kill -{number} $$")
            if done.exit.code != 128 + number or done.exit.signal not in {None, number}:
                raise Broken(f"a command that signal {number} ended gave {done}")


@about("execute")
async def a_command_that_cannot_start_says_why(stage: Stage) -> None:
    """A command that is not there gives 127, one that cannot be executed 126, with the reason."""
    async with stage.instance() as live:
        for program, code in (("no-such-program", 127), ("/no/such/program", 127), ("/", 126)):
            done = await live.run(program, "argument")
            if done.exit.code != code:
                raise Broken(f"the program {program} should give {code}: {done}")
            if not done.exit.reason:
                raise Broken(f"the program {program} cannot start, and no reason is given: {done}")
        await live.works_on("a command that could not start")


@about("execute")
async def a_cancelled_command_is_gone(stage: Stage) -> None:
    """A cancelled command has ended with its whole tree before `execute` returns, or is spent."""
    heart = stage.heart()
    async with stage.instance(Spec(mounts=heart.mounts)) as live:
        work = await _running(live, heart)
        work.cancel()
        if await _spent(work):
            return  # teardown follows, and other checks look at that
        if heart.case.mounts and not await heart.stopped():
            raise Broken("processes of a cancelled command go on writing to a mount")
        await live.works_on("a command that was cancelled")


@about("execute")
async def cancelling_twice_changes_nothing(stage: Stage) -> None:
    """A command that is cancelled over and over is as gone as one that is cancelled once."""
    heart = stage.heart()
    async with stage.instance(Spec(mounts=heart.mounts)) as live:
        work = await _running(live, heart)
        while not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=0.001)
        if not await _spent(work) and heart.case.mounts and not await heart.stopped():
            raise Broken("processes of a command that was cancelled often write to a mount")


@about("execute")
async def a_deadline_ends_a_run(stage: Stage) -> None:
    """A run whose deadline passes is stopped and torn down, through the engine that users use."""
    heart = stage.heart()

    def listen(event: Event) -> None:
        if isinstance(event, PhaseStarted | PhaseEnded):
            word = "enter" if isinstance(event, PhaseStarted) else "leave"
            stage.say(f"{word} {event.phase}")

    async with Router.open(
        state=stage.case.state, config=configured(stage), listener=listen
    ) as router:
        try:
            await router.run(
                heart.forever(),
                timeout=1.0,
                runtime=stage.case.runtime,
                image=stage.case.image,
                mounts=heart.mounts,
                deadlines=deadlines(stage),
            )
        except DeadlineExceeded as error:
            if error.phase != "execute":
                raise Broken(str(error), hook=error.phase, promise=ENDS) from error
        else:
            raise Broken("a command that never ends has ended")
    found = await stage.runtime.list_instances(stage.ledger.install)
    if found:
        raise Broken(f"after a run {', '.join(found)} are listed", hook="teardown")
    if heart.case.mounts and not await heart.stopped():
        raise Broken("after a run its processes write to a mount", hook="teardown")


def configured(stage: Stage) -> Config:
    """A configuration that lets the runtime run, however little it isolates."""
    tables = {stage.case.runtime: dict(stage.case.settings)}
    return Config.of(Settings(runtimes=tables, min_isolation=Isolation.NONE))


def deadlines(stage: Stage) -> Deadlines:
    """The deadline of a hook, for each that has one in a session."""
    seconds = stage.case.hook_timeout
    return Deadlines(seconds, seconds, seconds, seconds)


async def _running(live: Live, heart: Heart) -> asyncio.Task[object]:
    """A command that goes on, once it does."""
    ready = asyncio.Event()

    async def sink(_: bytes) -> None:
        ready.set()

    command, io = Command(heart.forever()), IO(None, sink, Capture())
    work: asyncio.Task[object] = asyncio.create_task(
        live.runtime.execute(live.instance, command, io)
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({work, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        raise Broken(f"a command that goes on has ended: {work.result()}")
    if not ready.is_set():
        raise Broken("the output of a running command does not come while it runs")
    await heart.begins()
    return work


async def _spent(work: asyncio.Task[object]) -> bool:
    """See how a cancelled call ends, and return whether its instance is spent.

    Raises:
        Broken: as if it had not been cancelled.
    """
    await asyncio.wait({work})
    if work.cancelled():
        return False
    error = work.exception()
    if error is None:
        raise Broken(f"its cancellation was swallowed: it returned {work.result()}")
    if isinstance(error, SpentInstance):
        return True
    if isinstance(error, Broken):
        raise error
    raise Broken(f"cancelled, it raised {error!r} instead of the cancellation")


CHECKS: Final = (
    exit_codes_are_the_commands_own,
    a_signal_is_told_as_a_shell_does,
    a_command_that_cannot_start_says_why,
    a_cancelled_command_is_gone,
    cancelling_twice_changes_nothing,
    a_deadline_ends_a_run,
)
