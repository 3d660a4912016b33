"""A backend that is asked for something and does it, or not, or late: the fault decides.

Its server, or its tool, goes on when the client that asked for something is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from claw_core.hookspecs import Runtime
from claw_core.model import (
    IO,
    Assessment,
    Audit,
    Command,
    Description,
    Exit,
    Instance,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.testing.clock import Killed, Turn
from claw_core.testing.disk import Opened
from claw_core.testing.machine import Process
from claw_core.testing.world import LATENCY, LINGER, SETTLE, World


class Model(Runtime):
    """The client of the backend, as a runtime is: it knows what it is answered, and nothing else.

    It serves one world after the other, since making a `Relay` takes longer than a whole schedule.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings or {})
        self.world: World

    async def describe(self) -> Description:
        """See `Runtime`."""
        return Description(available=True)

    async def assess(self, spec: Spec) -> Assessment:
        """See `Runtime`."""
        raise NotImplementedError

    async def prepare(self, instance: Instance) -> None:
        """See `Runtime`."""
        world, name = self.world, instance.name
        lock = instance.host.inherited()[0] if world.mode == "tool" else None
        await self._call("prepare", name, lambda: world.create(name), lock)

    async def start(self, instance: Instance) -> None:
        """See `Runtime`."""
        await self._call("start", instance.name, lambda: self.world.run(instance.name))

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """See `Runtime`."""
        await self._call("execute", instance.name, lambda: None)
        return Exit(0)

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """See `Runtime`."""
        audit = isinstance(target, Audit)
        name = f"{instance.name}@{target.label}" if isinstance(target, Audit) else target.name
        await self._call(
            "snapshot", instance.name, lambda: self.world.keep(name) if audit else None
        )
        return name

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """See `Runtime`; nobody here depends on the answer."""
        return frozenset(Snapshot(name, name.partition("@")[0]) for name in self.world.snapshots)

    async def delete_snapshot(self, name: str) -> None:
        """See `Runtime`."""
        self.world.snapshots.discard(name)

    async def stop(self, instance: Instance) -> None:
        """See `Runtime`."""
        await self._call("stop", instance.name, lambda: self.world.stop(instance.name))

    async def teardown(self, instance: Instance) -> None:
        """See `Runtime`."""
        await self._call("teardown", instance.name, lambda: self.world.delete(instance.name))

    async def list_instances(self, install: str) -> frozenset[str]:
        """See `Runtime`."""
        prefix = f"claw-{install}-"
        names: frozenset[str] = await self._call(
            "list_instances",
            "",
            lambda: frozenset(name for name in self.world.existing if name.startswith(prefix)),
        )
        return names

    async def _call(
        self, hook: str, name: str, effect: Callable[[], object], lock: int | None = None
    ) -> Any:
        """Ask for something, and be struck by the fault that is due.

        Args:
            hook: which hook asks.
            name: the instance, or nothing for a listing.
            effect: what is done, some time later.
            lock: descriptor that a tool has while it is at work.
        """
        world = self.world
        process = world.process()
        kind = world.asked(process, hook, name)
        if kind == "kill":
            await _die(process)
        if kind == "before" or world.down:
            raise ConnectionRefusedError("nothing was done")
        if kind == "lie" and hook == "list_instances":
            return world.stale()
        seconds = LATENCY * world.machine.chance.random()
        if kind == "late":
            longest = SETTLE if world.mode == "server" else LINGER
            seconds = longest * (0.05 + 0.9 * seconds / LATENCY)
        work = Work(world, name if hook == "prepare" else "", effect, lock)
        if kind == "lie":
            work.effect = lambda: None
        answer = work.begin(process, seconds)
        if kind == "late":
            await _die(process)
        if kind == "cancel":
            process.main.cancel()
        try:
            result = await answer
        except asyncio.CancelledError:
            if world.mode == "tool":
                work.abort()  # as `Host.run` promises: when cancelled, it has ended
            raise
        if kind == "kill-after":
            await _die(process)
        if kind == "hang":
            await process.create_future()
        if kind == "after":
            raise ConnectionResetError("it was done")
        return result


@attrs.define(eq=False)
class Work:
    """Something that a server or a tool has been asked for; it goes on without its client."""

    world: World
    creates: str
    effect: Callable[[], object]
    lock: int | None
    _turn: Turn | None = attrs.field(init=False, default=None)
    _opened: Opened | None = attrs.field(init=False, default=None)

    def begin(self, process: Process, seconds: float) -> asyncio.Future[Any]:
        """Let it be done so much later, and return what will be the answer."""
        machine = self.world.machine
        if self.creates:
            self.world.coming[self.creates] += 1
        if self.lock is not None:
            self._opened = machine.inherit(self.lock)
        answer = process.create_future()
        self._turn = machine.timeline.call(seconds, self._happen, answer)
        self.world.works.add(self)
        return answer

    def abort(self) -> None:
        """Let it not be done, if that has not happened yet."""
        if self in self.world.works:
            self._end()

    def _happen(self, answer: asyncio.Future[Any]) -> None:
        self._end()
        try:
            result = self.effect()
        except OSError as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    def _end(self) -> None:
        self.world.works.discard(self)
        if self._turn is not None:
            self._turn.cancel()
        if self.creates:
            self.world.coming[self.creates] -= 1
        if self._opened is not None:
            self.world.machine.disk.close(self._opened)


async def _die(process: Process) -> None:
    """Kill the process that is at work here, which therefore never goes on."""
    with contextlib.suppress(Killed):
        process.machine.kill(process)
    await process.create_future()
