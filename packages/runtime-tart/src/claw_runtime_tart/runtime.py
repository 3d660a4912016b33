"""The `tart` runtime: an instance is a virtual machine, cloned from an image for one session."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core import failpoints
from claw_core.errors import ClawError, DeadlineExceeded, RuntimeFault
from claw_core.hookspecs import Runtime
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Image,
    Instance,
    Refusal,
    Sink,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.search import search
from claw_core.tasks import in_thread, persist
from claw_runtime_tart import assessing, cli, guest, identity, processes, saving, sealing
from claw_runtime_tart.assessing import image_of, restricted
from claw_runtime_tart.cli import Tart
from claw_runtime_tart.cloning import Cloner
from claw_runtime_tart.ending import Ending
from claw_runtime_tart.furnishing import Furniture
from claw_runtime_tart.identity import Identity
from claw_runtime_tart.machine import Machine
from claw_runtime_tart.reached import Reached, drop
from claw_runtime_tart.reaching import Reaching
from claw_runtime_tart.saving import UNFINISHED, Saving
from claw_runtime_tart.settings import Settings
from claw_runtime_tart.shares import Shares, first
from claw_runtime_tart.vms import SOCKET, Directory, is_remote

_HEADLESS: Final = ("--no-graphics", "--no-audio", "--no-clipboard")
_MISSING: Final = "there is no tart, neither on PATH nor where Homebrew puts it"

KEPT_IN: Final = (
    *("/Users", "/home", "/root", "/tmp", "/private/tmp", "/var/tmp", "/private/var/folders"),  # noqa: S108 - looked into
    *("/etc", "/private/etc", "/opt", "/usr/local", "/Library", "/workspace"),
)
"""Directories of a guest that what is run there can have written to."""

_PRE_CLONE = failpoints.declare("tart.pre-clone", "the machine is about to be cloned")
_POST_CLONE = failpoints.declare("tart.post-clone", "the machine is there, stopped")
_PRE_RUN = failpoints.declare("tart.pre-run", "the machine is its own, and about to run")
_POST_RUN = failpoints.declare("tart.post-run", "what runs the machine has been started")
_READY = failpoints.declare("tart.ready", "the guest takes commands")
_SEALED = failpoints.declare("tart.sealed", "the guest is that of an image, and still runs")
_PRE_STOP = failpoints.declare("tart.pre-stop", "the machine is about to be stopped")


@attrs.define(eq=False)
class _Live:
    """What this process knows about a machine of its own.

    Attributes:
        machine: its process.
        furniture: its mounts.
        workdir: where commands start; None is the home.
        reached: its guest, once that takes commands.
    """

    machine: Machine
    furniture: Furniture
    workdir: str | None
    reached: Reached | None = None

    def absolute(self, path: str) -> str:
        """A path, which may be relative to where commands start."""
        if path.startswith("/") or self.workdir is None:
            return path
        return f"{self.workdir}/{path}"

    async def end(self) -> None:
        """Let go of the guest, and end the machine."""
        if self.reached is not None:
            await self.reached.transport.close()
        await self.machine.end()


class TartRuntime(Runtime):
    """Virtual machines of Tart on this Mac.

    Args:
        settings: see `Settings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """

    recipe = Path(__file__).with_name("agent.toml")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = Settings.parse(settings)
        self._live: dict[str, _Live] = {}
        self._found = assessing.find(self._settings)
        # A reaper, in whatever environment, must look where the machine was made.
        own = {"tart": self._found.executable, "home": str(self._found.home)}
        super().__init__({**settings, **own})

    async def describe(self) -> Description:
        """Say whether Tart is here, and what may stand in its way."""
        if not self._found.installed:
            return Description(False, reason=_MISSING, remedy=cli.INSTALL)
        try:
            return await assessing.describe(self._found, self._settings)
        except RuntimeFault as error:
            return Description(False, reason=error.message, remedy=error.remedy)

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Say what a machine gives for the spec."""
        if not self._found.installed:
            return Refusal(_MISSING, cli.INSTALL)
        return await assessing.assess(self._tart(spec), self._settings, spec)

    async def prepare(self, instance: Instance) -> None:
        """Clone the image, and give the clone what must be its own."""
        image = image_of(instance.spec, self._settings)
        cloner = self._cloner(instance)
        if self._settings.pull and is_remote(image):
            await cloner.pull(image)
        failpoints.hit(_PRE_CLONE)
        await cloner.clone(image, instance.name)
        failpoints.hit(_POST_CLONE)
        await cloner.personalize(image, instance.name, instance.spec.resources)

    async def start(self, instance: Instance) -> None:
        """Start the machine, and return as soon as its guest takes commands."""
        tart, spec = self._tart(instance.spec), instance.spec
        shares = await in_thread(Shares.of, spec.mounts, self._settings.share)
        options = [*_HEADLESS, *shares.options(), *self._network(spec)]
        with contextlib.suppress(FileNotFoundError):
            # Of its last run, where it was stopped: `tart exec` would not work beside it.
            await in_thread((Directory(tart.home).path(instance.name) / SOCKET).unlink)
        workdir = spec.workdir or await in_thread(first, spec.mounts)
        failpoints.hit(_PRE_RUN)
        machine = await Machine.start(tart, instance.host, instance.name, options)
        live = self._live[instance.name] = _Live(machine, Furniture(shares), workdir)
        failpoints.hit(_POST_RUN)
        instance.host.progress("booting")
        reaching = Reaching(self._settings, tart, instance)
        timer = asyncio.timeout(self._settings.ssh_timeout)
        try:
            async with timer:
                transport = await machine.during(reaching.reach(), "before it took commands")
        except TimeoutError:
            if not timer.expired():
                raise
            raise DeadlineExceeded(
                f"{reaching.missing} within {self._settings.ssh_timeout:g} s",
                remedy="see whether the image boots: tart run IMAGE; a slow host needs more: "
                "TART_SSH_TIMEOUT in milliseconds",
            ) from None
        live.reached = Reached(machine, transport)
        system = str(await in_thread(self._configured, instance, "os"))
        await live.furniture.place(live.reached, instance.host, system)
        failpoints.hit(_READY)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command in the guest; see the contract."""
        live, reached, spec = self._living(instance), self._reached(instance), instance.spec
        token = secrets.token_hex(16)
        secret = {name: instance.host.secret(name) for name in spec.secrets}
        workdir = live.furniture.find(command.workdir or live.workdir)
        terminal = command.terminal
        program = guest.command(
            command.argv,
            {**spec.env, **secret, **command.env},
            workdir,
            token,
            terminal=terminal is not None,
        )
        if terminal is None:
            opening = guest.Opening(token, io.stderr)
            io = attrs.evolve(io, stderr=opening)
        else:
            opening = guest.Opening(token, io.stdout)
            io = attrs.evolve(io, stdout=opening)
        try:
            ended = await reached.run(program, token, io, terminal)
            await opening.end()
        except BaseException:
            try:
                await self._bring_back(instance)
            except ClawError as error:  # how the command ended matters more
                instance.host.notice(error.message)
            raise
        await self._bring_back(instance)
        return guest.outcome(ended, opening.said, command.argv[0], workdir)

    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack with the guest's `tar`."""
        live = self._living(instance)
        path = live.absolute(target)
        await live.furniture.receive(self._reached(instance), archive, path)
        await self._bring_back(instance)

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Pack with the guest's `tar`."""
        live = self._living(instance)
        await live.furniture.send(self._reached(instance), live.absolute(source), sink)

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """Flush the disk, stop the machine, and clone it; it takes no commands afterwards."""
        reached = self._reached(instance)
        known = await self._seal(reached) if isinstance(target, Image) else None
        await reached.transfer("sync", IO(None, drop, drop), "flush the disk")
        failpoints.hit(_SEALED)
        await self._living(instance).end()
        return await Saving(self._cloner(instance), instance.name).save(target, known)

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """What is in Tart's directory of machines that are kept for inspection."""
        names = await in_thread(Directory(self._tart(Spec()).home).names)
        return saving.audits(names, install)

    async def delete_snapshot(self, name: str) -> None:
        """Delete a machine that is kept for inspection."""
        saving.require_audit(name)
        await Ending(self._tart(Spec()), None, name).end()

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        """Look where the guest's user, and programs that he starts, keep their files."""
        return await search(functools.partial(self.execute, instance), texts, KEPT_IN)

    async def stop(self, instance: Instance) -> None:
        """Flush the disk, and stop the machine; it is there without this process anyway."""
        live = self._live.get(instance.name)
        if live is not None:
            if live.reached is not None and live.machine.running:
                await live.reached.transfer("sync", IO(None, drop, drop), "flush the disk")
            await live.end()
        await Ending(self._tart(instance.spec), instance.host, instance.name).stop()
        self._live.pop(instance.name, None)

    async def teardown(self, instance: Instance) -> None:
        """Stop and delete the machine, and what of an image is not finished."""
        tart, live = self._tart(instance.spec), self._live.get(instance.name)
        failpoints.hit(_PRE_STOP)
        if live is not None:
            await live.end()
        for name in (instance.name, f"{instance.name}{UNFINISHED}"):
            await Ending(tart, instance.host, name).end()
        self._live.pop(instance.name, None)

    async def list_instances(self, install: str) -> frozenset[str]:
        """What is in Tart's directory, of which its own listing is a part, and what runs."""
        prefix = f"claw-{install}-"
        there, running = await asyncio.gather(
            in_thread(Directory(self._found.home).names), processes.names()
        )
        names = (name for name in there | running if name.startswith(prefix))
        return frozenset(name.removesuffix(UNFINISHED) for name in names)

    async def _bring_back(self, instance: Instance) -> None:
        """Bring back what is copied, whoever is cancelled meanwhile: it is what the run was for."""
        live = self._living(instance)
        if live.machine.running:
            await persist(live.furniture.bring_back(self._reached(instance), instance.host))

    async def _seal(self, reached: Reached) -> Identity:
        """Make the guest one that can be told from others, and lets in us and nobody else."""
        key = await in_thread(identity.public_key)
        program = f"export CLAW_KEY={guest.quote(key)}\n{sealing.SEAL}"
        host_key = sealing.host_key(await reached.ask(program, "seal the image"))
        if host_key is None:
            raise RuntimeFault("the guest did not say its new host key")
        return Identity(host_key, key, self._settings.username)

    def _network(self, spec: Spec) -> list[str]:
        """Arguments of `tart run`: nothing, or softnet, which lets through only what is allowed."""
        if not restricted(spec, self._settings):
            return []
        options = ["--net-softnet", "--net-softnet-block=0.0.0.0/0"]
        if spec.network != "none" and self._settings.allow:
            options.append(f"--net-softnet-allow={','.join(self._settings.allow)}")
        return options

    def _cloner(self, instance: Instance) -> Cloner:
        return Cloner(self._tart(instance.spec), instance.host)

    def _configured(self, instance: Instance, key: str) -> object:
        return Directory(self._found.home).config(instance.name).get(key, "darwin")

    def _tart(self, spec: Spec) -> Tart:
        return attrs.evolve(self._found, without=(cli.PASSWORD, *spec.secrets))

    def _living(self, instance: Instance) -> _Live:
        try:
            return self._live[instance.name]
        except KeyError:
            raise RuntimeFault(
                "the instance was not made by this process", remedy="open a session of its own"
            ) from None

    def _reached(self, instance: Instance) -> Reached:
        reached = self._living(instance).reached
        if reached is None:
            raise RuntimeFault("the instance was not started", remedy="open a session of its own")
        return reached
