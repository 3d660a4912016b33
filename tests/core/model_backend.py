"""A backend whose instances are directories, and tools to kill its users at any point."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from claw_core import failpoints
from claw_core.hookspecs import Runtime
from claw_core.intent import Intent
from claw_core.lease import Lease
from claw_core.ledger import Ledger
from claw_core.model import IO, Assessment, Command, Description, Exit, Instance, Spec
from claw_core.reaper import Reaper
from claw_core.teardown import Outcome


class ModelRuntime(Runtime):
    """An instance is the directory `<world>/<name>`.

    Settings: `world`; `broken`: teardown raises; `deaf`: teardown does nothing; `slow`: seconds
    that a teardown takes; `wide`: the listing is of every installation.
    """

    @property
    def world(self) -> Path:
        return Path(self.settings["world"])

    async def describe(self) -> Description:
        return Description(available=True)

    async def assess(self, spec: Spec) -> Assessment:
        raise NotImplementedError

    async def prepare(self, instance: Instance) -> None:
        create(self.world, instance.name)

    async def start(self, instance: Instance) -> None:
        """Nothing to start."""

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        raise NotImplementedError

    async def teardown(self, instance: Instance) -> None:
        if self.settings.get("broken"):
            raise RuntimeError("the model is broken")
        if slow := self.settings.get("slow"):
            await asyncio.sleep(slow)
        if not self.settings.get("deaf"):
            delete(self.world, instance.name)

    async def list_instances(self, install: str) -> frozenset[str]:
        return frozenset(
            name
            for name in os.listdir(self.world)
            if self.settings.get("wide") or name.startswith(f"claw-{install}-")
        )


def create(world: Path, name: str) -> None:
    (world / name).mkdir()
    (world / name / "disk").touch()


def delete(world: Path, name: str) -> None:
    try:
        for part in os.listdir(world / name):
            (world / name / part).unlink(missing_ok=True)
        (world / name).rmdir()
    except FileNotFoundError:
        pass  # another reaper was faster


def create_late(world: Path, name: str, seconds: float) -> int:
    """Ask a server, which survives its client, for an instance that shows itself later."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        create(world, name)
        os._exit(0)
    return pid


def resolve(name: str, settings: Any) -> Runtime:
    return ModelRuntime(settings)


def intent(ledger: Ledger, world: Path, settle: float = 0.0, **settings: Any) -> Intent:
    return Intent.new(
        ledger.install, "model", {"world": str(world), **settings}, group="g", settle=settle
    )


def orphan(ledger: Ledger, world: Path, settle: float = 0.0, **settings: Any) -> Intent:
    """Leave an instance behind, as an owner does that was killed while it ran."""
    with ledger.acquire(intent(ledger, world, settle, **settings)) as lease:
        create(world, lease.name)
        return lease.intent


def lifecycle(state: Path, world: Path, settle: float = 0.0) -> None:
    """A whole run, passing every failpoint of the ledger that an owner can pass."""
    ledger = Ledger.open(state)
    lease: Lease = ledger.acquire(intent(ledger, world, settle))
    lease.op_lock()
    lease.record("key", "value")
    create(world, lease.name)
    lease.mark("running")
    lease.mark("stopping")
    delete(world, lease.name)
    assert not (world / lease.name).exists()
    lease.mark("gone")
    lease.release()


def reap(state: Path, deadline: float = 20.0, **options: Any) -> list[Outcome]:
    return asyncio.run(Reaper(Ledger.open(state), resolve).reap(deadline, **options))


def child(work: Callable[[], object], plan: str = "", log: Path | None = None) -> int:
    """Fork a process that does `work` with failpoints armed; it exits 3 if the work raises."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoints.arm(plan, str(log) if log else None)
            work()
        except BaseException:  # noqa: BLE001 - the parent asserts on the exit code
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    return pid


def ended(pid: int) -> int:
    """Wait for a child; 0, 3, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
