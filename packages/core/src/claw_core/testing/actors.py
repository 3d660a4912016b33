"""Who is at work in a world: owners, their wardens, and reapers; each is a process of its own.

They run core's own `Router`, `Session` and `Reaper`. Only planning, which is over before anything
can leak, and the waiter, a program of its own, are stood in for.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core import events
from claw_core.config.config import Config
from claw_core.config.settings import NOTHING
from claw_core.errors import ClawError, TeardownFailed, WardenUnavailable
from claw_core.isolation import Isolation
from claw_core.keeping import Keeping
from claw_core.model import Assessment, Image, Spec
from claw_core.reaper import Reaper, exhaust
from claw_core.redaction import Redactor
from claw_core.relay import Relay
from claw_core.router import Router
from claw_core.routing import Route
from claw_core.session import Session
from claw_core.tasks import in_thread, persist
from claw_core.testing.backend import Model
from claw_core.testing.machine import Process
from claw_core.testing.world import KEPT, SETTLE, STATE, World
from claw_core.waiter import BRIEF_PATIENCE, PATIENCE, Demand
from claw_core.warden import Warden

RUNTIME: Final = "model"


@attrs.frozen
class Plan:
    """What a planner says of every run."""

    merged: Any = NOTHING


@attrs.frozen(eq=False)
class Decided:
    """A planner that has decided already."""

    route: Route
    relay: Relay
    config: Config = Config()

    async def plan(self, group: str | None, asked: object, agent: object = None) -> Plan:
        """See `Planner`."""
        return Plan()

    async def trusted_spec(self, plan: Plan, workspace: Path | None, *, folder: bool) -> Spec:
        """See `Planner`."""
        return self.route.spec

    async def decide(self, plan: Plan, spec: Spec, needs: Sequence[str]) -> tuple[Route, Relay]:
        """See `Planner`."""
        return self.route, self.relay

    async def remember(self, plan: Plan, spec: Spec) -> None:
        """See `Planner`."""


@attrs.define(eq=False)
class Stage:
    """What all worlds can share: to make it takes longer than a whole schedule."""

    model: Model = attrs.field(factory=Model)
    relay: Relay = attrs.field(init=False)
    planners: Mapping[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.relay = Relay(RUNTIME, self.model)
        self.planners = {
            mode: Decided(
                Route(RUNTIME, {}, Assessment(Isolation.CONTAINER, settle=settle), "a test"),
                self.relay,
            )
            for mode, settle in (("server", SETTLE), ("tool", 0.0))
        }

    def resolve(self, name: str, settings: Mapping[str, Any]) -> Relay:
        """What a reaper gets for the name of a runtime."""
        return self.relay


@attrs.define(eq=False)
class Cast:
    """Everybody in one world.

    Attributes:
        world: where they are.
        stage: see there.
        trying: the waiters that go on after their owner's death.
        quiet: whether nothing goes wrong but at the boundaries of hooks.
        disturbed: whether something is left for which no warden could do its work.
    """

    world: World
    stage: Stage
    quiet: bool = True
    trying: set[Process] = attrs.field(factory=set)
    disturbed: bool = False

    def owner(self, name: str, lives_on: float = 0.0, *, keeps: bool = False) -> Process:
        """Start a process that runs one command in an instance of its own.

        Args:
            name: for the trace.
            lives_on: seconds for which it keeps its router open afterwards.
            keeps: whether the instance is to be kept, with a snapshot before.
        """
        process = self.world.machine.spawn(name, lambda: _run(self, process, lives_on, keeps=keeps))
        return process

    def reaper(
        self,
        name: str,
        owner: int | None = None,
        deadline: float = 120.0,
        *,
        adopts: bool = False,
    ) -> Process:
        """Start a process that reaps once; its status is 0 when there is nothing left to do.

        Args:
            name: for the trace.
            owner: as for `exhaust`.
            deadline: as for `exhaust`.
            adopts: first make entries for what is ours and has none.
        """
        process = self.world.machine.spawn(
            name, lambda: _reap(self, process, owner, deadline, adopts=adopts)
        )
        return process

    def waited(self, session: Session | None) -> None:
        """L1: the warden of an owner that lives has seen to what it had to leave."""
        if self.quiet and not self.disturbed and session is not None:
            name = session.name
            there = name in self.world.existing or self.world.entry(name) is not None
            if there and name not in self.world.kept():
                self.world.violate("L1", f"{name} is left while its owner lives on")


async def _reap(
    cast: Cast, process: Process, owner: int | None, deadline: float, *, adopts: bool
) -> None:
    await asyncio.sleep(0.1 * cast.world.machine.chance.random())  # until Python has started
    try:
        if adopts:
            reaper = Reaper(cast.world.ledger(), cast.stage.resolve, [(RUNTIME, {})])
            await reaper.reap(deadline, adopt=True)
        done = await exhaust(Reaper(cast.world.ledger(), cast.stage.resolve), deadline, owner)
    except ClawError as error:
        cast.world.note(f"fails: {error}")
        process.status = 1
    else:
        process.status = 0 if done else 1


async def _run(cast: Cast, process: Process, lives_on: float, *, keeps: bool) -> None:
    """What `claw run` does between its planning and its end, with a snapshot of some kind."""
    world = cast.world
    ledger = world.ledger()
    router = SimulatedRouter(
        ledger, cast.stage.planners[world.mode], Redactor(), events.ignore, cast, process
    )
    error: BaseException | None = None
    try:
        if any(entry.reapable for entry in await in_thread(ledger.scan)):
            (await router.warden()).request_reap()
        keeping = Keeping("always", "always", KEPT) if keeps else None
        async with router.session(keeping=keeping) as session:
            await session.run(["x"], timeout=60.0)
            if not keeps:
                await session.snapshot(Image("a"))
    except (asyncio.CancelledError, ClawError, BaseExceptionGroup) as failure:
        error = failure
    _judge(world, router.opened, error, keeps=keeps)
    try:
        if lives_on:
            ended = process.time()
            await asyncio.sleep(lives_on)
            if world.last_fault <= ended:
                cast.waited(router.opened)
        await persist(router._close())  # noqa: SLF001 - the end of `Router.open`
    except (asyncio.CancelledError, ClawError) as failure:
        world.note(f"cannot close: {failure!r}")


def _judge(
    world: World, session: Session | None, error: BaseException | None, *, keeps: bool
) -> None:
    """S4: what is said of the end is true, and nothing that failed is kept quiet."""
    if world.trace is not None:
        world.note(f"ends: {error!r}; teardown: {session and session.record.teardown}")
    if session is None:
        return
    name, said = session.name, session.record.teardown
    there = name in world.existing or world.coming[name] > 0
    failed = any(isinstance(one, TeardownFailed) for one in _all(error))
    if said in {"gone", "limbo"} and failed:
        world.violate("S4", f"{name} is {said}, and yet its teardown is said to have failed")
    if said not in {"gone", "limbo", "pending", "held"} and not failed:
        world.violate("S4", f"{name} is {said}, and nobody was told")
    if said in {"gone", "pending"} and there:
        world.violate("S4", f"{name} is said to be {said}, and it is there")
    if said not in {"gone", "pending"} and there and world.entry(name) is None:
        world.violate("S4", f"{name} is {said}, and has no entry")
    # Others may believe a listing that lies, and adopt what is gone.
    if said == "gone" and any(one.author is world.process() for _, one in world.entries(name)):
        world.violate("S4", f"{name} is said to be gone, and has an entry")
    if said == "held" and name not in world.kept():
        world.violate("S4", f"{name} is said to be kept, and is not")
    if keeps and error is None and said != "held":
        world.violate("S4", f"{name} was to be kept, is {said}, and nobody was told")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _all(error: BaseException | None) -> Iterator[BaseException]:
    """An error with everything in it."""
    if error is not None:
        yield error
        for one in getattr(error, "exceptions", ()):
            yield from _all(one)


class SimulatedRouter(Router):
    """A router whose warden is a process of the world."""

    def __init__(
        self,
        ledger: Any,
        planner: Any,
        redact: Redactor,
        listener: events.Listener,
        cast: Cast,
        process: Process,
    ) -> None:
        super().__init__(ledger, planner, redact, listener)
        self.cast = cast
        self.process = process
        self.opened: Session | None = None

    def _session(self, *arguments: Any) -> Session:
        self.opened = super()._session(*arguments)
        return self.opened

    async def _retain(self) -> None:
        """What is too much is not looked for here: that reads real files."""

    def _start_warden(self) -> asyncio.Task[Warden]:
        if self._warden is None:
            self._warden = asyncio.create_task(self._stand_by())
        return self._warden

    async def _stand_by(self) -> Warden:
        return SimulatedWarden(self.cast, self.process)


class SimulatedWarden(Warden):
    """A warden whose waiter is a process of the world.

    It decides as `waiter.py` does when a reaper is due (`Demand`); how that one waits, which is by
    blocking calls, is stood in for.
    """

    def __init__(self, cast: Cast, owner: Process) -> None:
        super().__init__(STATE, 5.0)
        self.cast = cast
        self.owner_process = owner
        self.commands: asyncio.Queue[str] = asyncio.Queue()
        self.waiter = cast.world.machine.spawn(f"w-{owner.name}", self._wait)
        owner.at_end.append(self.hand_over)

    async def ensure(self) -> None:
        """See `Warden`; a waiter that was killed is missed, but not replaced here."""
        if self.waiter.dead:
            raise WardenUnavailable("it was killed")

    def request_reap(self) -> None:
        """See `Warden`."""
        self.commands.put_nowait("r")

    def hand_over(self) -> None:
        """See `Warden`; the end of the owner comes to the same."""
        self.commands.put_nowait("eof")

    async def close(self) -> None:
        """See `Warden`."""
        self.commands.put_nowait("q")

    async def _wait(self) -> None:
        demand, reaper = Demand(), None
        alarm: asyncio.TimerHandle | None = None
        while (command := await self.commands.get()) != "eof":
            if command == "q":
                return
            now = self.waiter.time()
            if command == "r":
                demand.ask()
            elif command == "reaped" and reaper is not None:
                demand.ended(failed=reaper.status != 0, now=now)
            if reaper is not None and not reaper.dead:
                continue
            if alarm is not None:
                alarm.cancel()
            if now >= demand.due:
                demand.started()
                reaper = self._reaper()
                reaper.at_end.append(lambda: self.commands.put_nowait("reaped"))
            elif demand.due < math.inf:
                alarm = self.waiter.call_at(demand.due, self.commands.put_nowait, "due")
        await self._try()

    async def _try(self) -> None:
        world, waiter = self.cast.world, self.waiter
        alone = all(other.dead for other in self.cast.trying)
        self.cast.trying.add(waiter)
        until = waiter.time() + (PATIENCE if alone else BRIEF_PATIENCE)
        pause = 0.1
        while waiter.time() < until:
            reaper = self._reaper(self.owner_process.number)
            ended = waiter.create_future()
            reaper.at_end.append(functools.partial(_resolve, ended))
            await ended
            if reaper.status == 0:
                return
            await asyncio.sleep(pause)
            pause = min(30.0, 2 * pause)
        world.note("runs out of patience")
        self.cast.disturbed = True

    def _reaper(self, owner: int | None = None) -> Process:
        return self.cast.reaper(f"r-{self.owner_process.name}", owner)
