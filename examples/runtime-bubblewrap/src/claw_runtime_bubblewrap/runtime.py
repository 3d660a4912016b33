"""The runtime `bubblewrap`: an instance is a directory that the sandboxes of its commands share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from claw_core.errors import ConfigError, RuntimeFault, TeardownFailed
from claw_core.hookspecs import Runtime
from claw_core.isolation import Axes, Extent, Isolation
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Control,
    Description,
    Exit,
    Instance,
    Network,
    Refusal,
    Signal,
    Spec,
)
from claw_core.streaming import Streamed
from claw_core.tasks import in_thread, persist
from claw_runtime_bubblewrap import processes, sandbox, scratch

FACT = "directory"
"""Where the instance is, for a later process whose environment may be another one."""
PLACE = "place"
"""Where all of them are, for the same reason; the runtime sets this setting itself."""


class BubblewrapRuntime(Runtime):
    """Sandboxes made by `bwrap`. There are no settings to be set.

    Raises:
        ConfigError: there are settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        if unknown := [key for key in settings if key != PLACE]:
            raise ConfigError(
                f"bubblewrap has no settings, got {', '.join(unknown)}", remedy="remove them"
            )
        self._numbers = itertools.count()
        self._place = Path(settings[PLACE]) if PLACE in settings else scratch.default()
        # A process in another environment, such as a reaper, must look at the same place.
        super().__init__({PLACE: str(self._place)} if self._place else {})

    async def describe(self) -> Description:
        """Say what a sandbox that was just tried out offers."""
        found = await sandbox.probe()
        if isinstance(found, Refusal):
            return Description(available=False, reason=found.reason, remedy=found.remedy)
        return Description(True, found, isolation=Isolation.SANDBOX, axes=_axes("none"))

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Refuse what bwrap cannot do; the rest is a sandbox, without limits."""
        found = await sandbox.probe()
        refusal = found if isinstance(found, Refusal) else sandbox.refusal(spec)
        if refusal is not None:
            return refusal
        network = spec.network or "none"
        return Assessment(Isolation.SANDBOX, _axes(network), network)

    async def prepare(self, instance: Instance) -> None:
        """Make the scratch directory, after its place is written down."""
        directory = await in_thread(scratch.checked, self._place) / instance.name
        await instance.host.record(FACT, str(directory))
        await in_thread(scratch.make, directory, sandbox.PLACES)

    async def start(self, instance: Instance) -> None:
        """Do nothing: every command starts a sandbox of its own."""

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command in a new sandbox over the instance's directory, and end all of it."""
        number = str(next(self._numbers))
        mark = processes.mark(instance.name, number)
        directory = Path(instance.host.facts[FACT])
        env = {**instance.spec.env, **command.env}
        env |= {name: instance.host.secret(name) for name in instance.spec.secrets}
        options = sandbox.options(instance.spec, directory, env, command.workdir)
        await in_thread(scratch.make, directory / number)
        with sandbox.memory(options) as arguments, sandbox.memory() as status:
            signals = asyncio.create_task(_signal(status, io.control))
            try:
                done = await instance.host.stream(
                    (
                        *("bwrap", "--bind", str(directory / number), processes.MARKED),
                        *("--args", str(arguments), "--json-status-fd", str(status)),
                        *("--", *command.argv),
                    ),
                    attrs.evolve(io, control=None),
                    env={},  # an LD_PRELOAD of the spec is for the command, not for bwrap
                    descriptors=(arguments, status),
                )
            finally:
                signals.cancel()
                await persist(processes.end(mark))
            return _outcome(command.argv[0], _status(status), done)

    async def teardown(self, instance: Instance) -> None:
        """Forbid new sandboxes, end those that are there, remove what they shared, and look."""
        known = instance.host.facts.get(FACT)
        directory = (
            Path(known) if known else await in_thread(scratch.checked, self._place) / instance.name
        )
        await in_thread(scratch.fence, directory)
        await processes.end(processes.mark(instance.name))
        # bwrap's sandboxes have ended, so nothing can change the directory under these two but
        # another teardown. What that has removed is missed by them, so only what is there counts.
        said = b""
        for tool in ("chmod", "-R", "u+rwX"), ("rm", "-rf"):
            if scratch.exists(directory):
                done = await instance.host.run(
                    [*tool, "--", str(scratch.fenced(directory))], mutates=True
                )
                said += done.stderr
        if scratch.exists(directory) or instance.name in await in_thread(processes.names):
            raise TeardownFailed(f"it is still there {said.decode(errors='replace')}".rstrip())

    async def list_instances(self, install: str) -> frozenset[str]:
        """The process table and the directory of all instances."""
        found = await in_thread(processes.names) | await in_thread(scratch.names, self._place)
        return frozenset(name for name in found if name.startswith(f"claw-{install}-"))


def _axes(network: Network) -> Axes:
    isolated = Extent.FULL if network == "none" else Extent.NONE
    return Axes(fs=Extent.FULL, net=isolated, pid=Extent.FULL, kill=Extent.FULL)


async def _signal(status: int, control: AsyncIterator[Control] | None) -> None:
    if control is not None:
        async for message in control:
            # bwrap's child leads the command's process group, and is deaf to what is not SIGKILL.
            if isinstance(message, Signal) and (leader := _status(status).get("child-pid")):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader, message.number)


def _status(descriptor: int) -> dict[str, Any]:
    """What bwrap has said so far: `child-pid` once it runs, `exit-code` once the command ended."""
    found: dict[str, Any] = {}
    for line in os.pread(descriptor, 1 << 16, 0).splitlines():
        found |= json.loads(line)
    return found


def _outcome(program: str, status: Mapping[str, Any], done: Streamed) -> Exit:
    if "exit-code" in status:
        return Exit(status["exit-code"])
    text = done.errors.decode(errors="replace").strip()
    if not text.startswith("bwrap: execvp "):
        raise RuntimeFault(
            f"bwrap did not run the command: {text or f'it ended with {done.code}'}",
            phase="execute",
            remedy="see that the mounts and the working directory exist",
        )
    reason = text.rpartition(": ")[2]
    code = 127 if reason == os.strerror(errno.ENOENT) else 126
    return Exit(code, reason=f"{program}: cannot be executed in the instance: {reason}")
