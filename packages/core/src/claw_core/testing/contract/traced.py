"""A runtime whose calls are said aloud and have a deadline, however it takes that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

from claw_core.errors import ClawError
from claw_core.hookspecs import Runtime
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Sink,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.relay import Relay
from claw_core.testing.contract.verdict import ENDS, FAULTS, Broken

T = TypeVar("T")
GRACE: Final = 3.0
"""Seconds that a hook has to end once it was cancelled because it took too long."""


class Traced(Runtime):
    """Calls a runtime as core does.

    Args:
        relay: the runtime.
        say: gets `enter HOOK` and `leave HOOK`.
        seconds: how long one call may take.
    """

    def __init__(self, relay: Relay, say: Callable[[str], None], seconds: float) -> None:
        super().__init__(relay.settings)
        self.relay = relay
        self.seconds = seconds
        self._say = say

    async def describe(self) -> Description:
        """See the contract, as for all that follow."""
        return await self._call("describe", self.relay.describe())

    async def assess(self, spec: Spec) -> Assessment | Refusal:  # noqa: D102 - see the contract
        return await self._call("assess", self.relay.assess(spec))

    async def prepare(self, instance: Instance) -> None:  # noqa: D102
        await self._call("prepare", self.relay.prepare(instance))

    async def start(self, instance: Instance) -> None:  # noqa: D102
        await self._call("start", self.relay.start(instance))

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:  # noqa: D102
        return await self._call("execute", self.relay.execute(instance, command, io))

    async def teardown(self, instance: Instance) -> None:  # noqa: D102
        await self._call("teardown", self.relay.teardown(instance))

    async def list_instances(self, install: str) -> frozenset[str]:  # noqa: D102
        return await self._call("list_instances", self.relay.list_instances(install))

    async def upload(  # noqa: D102
        self, instance: Instance, archive: AsyncIterator[bytes], target: str
    ) -> None:
        await self._call("upload", self.relay.upload(instance, archive, target))

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:  # noqa: D102
        await self._call("download", self.relay.download(instance, source, sink))

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:  # noqa: D102
        return await self._call("snapshot", self.relay.snapshot(instance, target))

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:  # noqa: D102
        return await self._call("list_snapshots", self.relay.list_snapshots(install))

    async def delete_snapshot(self, name: str) -> None:  # noqa: D102
        await self._call("delete_snapshot", self.relay.delete_snapshot(name))

    async def search(  # noqa: D102
        self, instance: Instance, texts: tuple[str, ...]
    ) -> frozenset[str]:
        return await self._call("search", self.relay.search(instance, texts))

    async def stop(self, instance: Instance) -> None:  # noqa: D102
        await self._call("stop", self.relay.stop(instance))

    async def _call(self, hook: str, work: Coroutine[Any, Any, T]) -> T:
        """Await a hook in a task of its own; cancellation is passed on, and not helped along.

        Raises:
            Broken: it does not end, or fails in a way that core must apologise for.
        """
        self._say(f"enter {hook}")
        loop = asyncio.get_running_loop()
        task, limit = asyncio.ensure_future(work), loop.time() + self.seconds
        cancelled: asyncio.CancelledError | None = None
        passed = True
        while not task.done() and loop.time() < limit:
            try:
                await asyncio.wait({task}, timeout=limit - loop.time())
            except asyncio.CancelledError as error:
                cancelled, passed = error, task.cancel()
        if not task.done():
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=GRACE)
            how = "" if done else ", nor when it was cancelled"
            if cancelled:
                how = " after its cancellation"
            raise Broken(
                f"{hook} did not end within {self.seconds:g} s{how}", hook=hook, promise=ENDS
            )
        self._say(f"leave {hook}")
        if cancelled is not None and not passed:
            raise cancelled  # it had ended already, and never heard of it
        try:
            return task.result()
        except ClawError as error:
            if error.message.startswith(f"hook {hook} of "):
                raise Broken(error.message, hook=hook, promise=FAULTS) from error
            raise
