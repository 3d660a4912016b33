"""The `local` runtime: an instance is a handful of processes in a sandbox of the Linux kernel."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from claw_core import failpoints
from claw_core.errors import ConfigError, RuntimeFault, TeardownFailed
from claw_core.hookspecs import Runtime
from claw_core.isolation import Axes, Extent, Isolation
from claw_core.local import cgroup, commands, kernel, landlock, listing, plan, probe, scratch
from claw_core.local.cgroup import Cgroup
from claw_core.local.launch import Launched, NotLaunched
from claw_core.local.refusals import refusal
from claw_core.local.setup import SANDBOX_USER, Setup
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Refusal,
    Resources,
    Sink,
    Spec,
)
from claw_core.tasks import in_thread

TEARDOWN_TIMEOUT: Final = 20.0
"""Seconds until a teardown gives up; the processes of an instance end in milliseconds."""
GRACE: Final = 2.0
"""Seconds that an instance has to end by itself once its lifeline is closed."""

_GROUPED = failpoints.declare("local.cgroup-created", "the control group exists")
_PREPARED = failpoints.declare("local.prepared", "control group and scratch directory exist")
_PRE_SPAWN = failpoints.declare("local.pre-spawn", "the launcher is about to be started")
_POST_READY = failpoints.declare("local.post-ready", "the instance takes work")
_PRE_END = failpoints.declare("local.pre-end", "the instance is about to be ended")
_PRE_KILL = failpoints.declare("local.pre-kill", "it has not ended by itself and will be killed")
_POST_KILL = failpoints.declare("local.post-kill", "its processes were killed, and end now")
_POST_END = failpoints.declare("local.post-end", "no process of the instance is left")
_POST_REMOVE = failpoints.declare("local.post-remove", "nothing of the instance is left")

_LEVELS: Final = {"namespaces": Isolation.SANDBOX, "guard": Isolation.GUARD}
_ELSEWHERE: Final = Description(
    available=False,
    reason="the local runtime needs Linux on x86-64 or aarch64",
    remedy="install a runtime for this system: on Apple silicon claw-runtime-tart or "
    "claw-runtime-apple, elsewhere claw-runtime-docker",
)


class LocalRuntime(Runtime):
    """Sandboxes made from nothing but the kernel.

    Settings: `engine` is `auto` (default), `namespaces` or `guard`.

    Raises:
        ConfigError: unknown settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._launched: dict[str, tuple[Launched, Setup]] = {}
        self._found: tuple[str, dict[str, probe.Missing]] | None = None
        engine = settings.get("engine", "auto")
        if engine not in ("auto", *probe.ENGINES) or set(settings) - {"engine"}:
            raise ConfigError(
                f"settings of local: expected engine = auto, namespaces or guard, got {settings!r}",
                remedy="correct the settings",
            )
        self._engines = probe.ENGINES if engine == "auto" else (engine,)

    async def describe(self) -> Description:
        """Say which engine works here, and why a stronger one does not."""
        if not _possible():
            return _ELSEWHERE
        engine, missing = await self._engine()
        said = "; ".join(f"{name}: {why.reason}" for name, why in missing.items()) or None
        remedy = next((why.remedy for why in missing.values()), None)
        if engine is None:
            return Description(available=False, reason=said, remedy=remedy)
        axes = _axes(engine, Spec(network="none", resources=Resources(memory=1)))
        return Description(True, platform.release(), said, remedy, _LEVELS[engine], axes)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Say what a sandbox of this machine gives for the spec."""
        if not _possible():
            return Refusal(str(_ELSEWHERE.reason), str(_ELSEWHERE.remedy))
        if spec.image is not None:
            return Refusal(
                f"local has no images, and {spec.image!r} is asked for",
                "leave the image out, or choose a runtime that has images",
            )
        engine, missing = await self._engine()
        if engine is None:
            why = next(iter(missing.values()))
            return Refusal(why.reason, why.remedy)
        refused = refusal(spec, engine)  # a few calls of stat, cheaper than a thread
        if refused is not None:
            return refused
        notes = [
            f"local uses {engine}, not {n}: {m.reason} ({m.remedy})" for n, m in missing.items()
        ]
        if spec.resources.memory is not None and "memory" not in cgroup.places():
            notes.append("memory is bounded per process, not as a whole: there is no control group")
        return Assessment(
            _LEVELS[engine],
            _axes(engine, spec),
            network=spec.network or "none",
            # A control group, or guard's directory, does not.
            dies_with_owner=engine == "namespaces" and not _grouped(spec),
            notes=tuple(notes),
            # In a sandbox there are always some; guard takes the host's.
            terminal=engine == "namespaces" or os.access("/dev/ptmx", os.R_OK | os.W_OK),
        )

    async def prepare(self, instance: Instance) -> None:
        """Make the control group and the scratch directory, where the instance needs them."""
        resources = instance.spec.resources
        if _grouped(instance.spec):
            processes = resources.processes or plan.PROCESSES
            await in_thread(Cgroup(instance.name).create, resources, processes)
            failpoints.hit(_GROUPED)
        engine, _ = await self._engine()
        if engine == "guard":
            owner = SANDBOX_USER if plan.becomes_another() else None
            await in_thread(scratch.make, instance.name, owner)
        failpoints.hit(_PREPARED)

    async def start(self, instance: Instance) -> None:
        """Launch the instance; from here on its life hangs on a socket of this process."""
        engine, _ = await self._engine()
        if engine is None:
            raise RuntimeFault("no engine works here any more", remedy="see `claw runtimes`")
        env = dict(instance.spec.env)
        env |= {name: instance.host.secret(name) for name in instance.spec.secrets}
        commands.check_environment(env.items())
        spec = instance.spec
        limit_data = spec.resources.memory is not None and "memory" not in cgroup.places()
        setup = plan.make_setup(instance.name, spec, engine, env=env, limit_data=limit_data)
        failpoints.hit(_PRE_SPAWN)
        group = Cgroup(instance.name) if _grouped(spec) else None
        try:
            launched = await Launched.start(setup, instance.host.inherited(), group)
        except NotLaunched as error:
            if error.remedy is None:
                probe.forget()
                self._found = None
                error.remedy = "see `claw runtimes`, which tries the engines again"
            raise
        self._launched[instance.name] = launched, setup
        failpoints.hit(_POST_READY)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command in the instance; see the contract."""
        launched, setup = self._running(instance)
        workdir = plan.moved_path(command.workdir, setup.moved) or setup.workdir
        request = commands.request_for(command, workdir)
        report = await commands.run(launched, setup, request, io)
        return commands.outcome(report, command.argv, workdir)

    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack inside, confined as a command, and without needing `tar` there."""
        await self._transfer(instance, "unpack", target, IO(archive, _drop, _drop))

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Pack inside, confined as a command, and without needing `tar` there."""
        await self._transfer(instance, "pack", source, IO(None, sink, _drop))

    async def teardown(self, instance: Instance) -> None:
        """End every process, remove what was made, and return when the listing shows nothing."""
        until = time.monotonic() + TEARDOWN_TIMEOUT
        name = instance.name
        failpoints.hit(_PRE_END)
        launched = self._launched.pop(name, None)
        if launched is not None:
            await launched[0].end()
        grace = time.monotonic() + GRACE
        while pids := (await in_thread(listing.processes, _install(name))).get(name):
            # Whoever lost the lifeline ends everything properly, and can be asked to, which also
            # finds processes that hide their marker; what outlives that is killed.
            if time.monotonic() > until:
                raise TeardownFailed(f"processes {pids} do not end")
            if time.monotonic() > grace + GRACE:
                failpoints.hit(_PRE_KILL)
                await in_thread(listing.kill, name)
                failpoints.hit(_POST_KILL)
            elif time.monotonic() > grace:
                await in_thread(listing.terminate, name)
            await asyncio.sleep(0.005)
        failpoints.hit(_POST_END)
        await Cgroup(name).remove(until)
        await in_thread(scratch.remove, name)
        failpoints.hit(_POST_REMOVE)
        if name in await self.list_instances(_install(name)):
            raise TeardownFailed("it is still listed")

    async def list_instances(self, install: str) -> frozenset[str]:
        """The process table, the control groups and the scratch directories."""
        return await in_thread(_list, install)

    async def _engine(self) -> tuple[str | None, dict[str, probe.Missing]]:
        """The strongest engine that works here, and why the stronger ones do not.

        Once found it stays, so that an instance is started on the engine that was assessed.
        """
        if self._found is not None:
            return self._found
        missing: dict[str, probe.Missing] = {}
        for engine in self._engines:
            why = await probe.probe(engine)
            if why is None:
                self._found = engine, missing
                return self._found
            missing[engine] = why
        return None, missing

    def _running(self, instance: Instance) -> tuple[Launched, Setup]:
        try:
            return self._launched[instance.name]
        except KeyError:
            raise RuntimeFault(
                "the instance was not started by this process", remedy="open a session of its own"
            ) from None

    async def _transfer(self, instance: Instance, action: str, path: str, io: IO) -> None:
        launched, setup = self._running(instance)
        # Relative paths are below the home directory, which always exists; the workdir may not yet.
        home = setup.env["HOME"]
        request = {"action": action, "path": path, "argv": [], "env": {}, "workdir": home}
        report = await commands.run(launched, setup, request, io)
        if "failed" in report:
            raise RuntimeFault(f"cannot {action} {path!r} in the instance: {report['detail']}")
        if report["ended"]:
            raise RuntimeFault(f"cannot {action} {path!r}: ended with {report['ended']}")


async def _drop(data: bytes) -> None:
    """Nobody asked for this output."""


def _possible() -> bool:
    return sys.platform == "linux" and platform.machine() in kernel.MACHINES


def _install(name: str) -> str:
    return name.split("-")[1]


def _grouped(spec: Spec) -> bool:
    """Whether the instance gets a control group: only where a bound is asked for."""
    return any(
        asked is not None and controller in cgroup.places()
        for controller, asked in (
            ("memory", spec.resources.memory),
            ("cpu", spec.resources.cpus),
            ("pids", spec.resources.processes),
        )
    )


def _axes(engine: str, spec: Spec) -> Axes:
    isolated = spec.network != "default"
    memory = spec.resources.memory is not None and "memory" in cgroup.places()
    # Without a user namespace of its own an instance shares the limit with its user.
    processes = engine == "namespaces" or "pids" in cgroup.places()
    limits = Extent.FULL if memory and processes else Extent.PARTIAL
    if engine == "namespaces":
        return Axes(
            fs=Extent.FULL,
            net=Extent.FULL if isolated else Extent.NONE,
            pid=Extent.FULL,
            kill=Extent.FULL,
            limits=limits,
        )
    return Axes(
        # Attributes of files outside can be seen, and changed where the sandbox's user owns them.
        fs=Extent.PARTIAL,
        net=Extent.FULL if isolated else Extent.NONE,
        pid=Extent.PARTIAL if landlock.version() >= 6 else Extent.NONE,
        kill=Extent.PARTIAL,
        limits=limits,
    )


def _list(install: str) -> frozenset[str]:
    found = set(listing.processes(install)) | cgroup.listed(install) | scratch.listed(install)
    return frozenset(found)
