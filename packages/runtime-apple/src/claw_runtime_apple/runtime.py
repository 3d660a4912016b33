"""The `apple` runtime: an instance is a Linux container in a virtual machine of its own."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import attrs

from claw_core import failpoints
from claw_core.archive import pack
from claw_core.errors import ClawError, RuntimeFault
from claw_core.hookspecs import AGENT, Runtime
from claw_core.isolation import Isolation
from claw_core.model import (
    IO,
    Assessment,
    Command,
    Description,
    Exit,
    Instance,
    Mount,
    Refusal,
    Sink,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.search import search
from claw_runtime_apple import assessing, container, images, listing, removal, snapshot, starting
from claw_runtime_apple.cli import Cli, dotted
from claw_runtime_apple.commands import Running
from claw_runtime_apple.errors import ContainerUnavailable
from claw_runtime_apple.feed import BULK
from claw_runtime_apple.place import Place
from claw_runtime_apple.scripts import UPLOAD
from claw_runtime_apple.settings import Settings
from claw_runtime_apple.starting import Held, halt, turn

HOMEBREW: Final = "/opt/homebrew/bin/container"
"""Where Homebrew puts the command, which the PATH of a service may not have."""

_PRE_RUN = failpoints.declare("apple.pre-run", "the container is about to be made")
_POST_RUN = failpoints.declare("apple.post-run", "the call that makes it is under way")
_READY = failpoints.declare("apple.ready", "it takes commands")
_STOPPED = failpoints.declare("apple.stopped", "it has ended, and its disk is kept")
_PRE_DELETE = failpoints.declare("apple.pre-delete", "its deletion is about to be asked for")
_REMOVED = failpoints.declare("apple.removed", "no listing shows it")


@attrs.define(eq=False)
class _Live:
    """What this process knows about an instance of its own.

    Attributes:
        held: the call that it hangs on.
        place: where commands run, once it takes some.
    """

    held: Held | None = None
    place: Place | None = None


class AppleRuntime(Runtime):
    """Containers of Apple's `container`.

    Args:
        settings: see `Settings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """

    recipe = AGENT

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = Settings.parse(settings)
        self._live: dict[str, _Live] = {}
        program = self._settings.command or shutil.which("container") or shutil.which(HOMEBREW)
        self._found = None if program is None else Cli(program)
        if program is not None:
            # A reaper, in whatever environment, must use the same command.
            settings = {**settings, "command": program}
        super().__init__(settings)

    async def describe(self) -> Description:
        """Say whether the service runs, and what it can isolate."""
        try:
            cli = self._cli()
            version = await cli.version()
            details = await assessing.details(cli, self._settings)
        except ClawError as error:
            return Description(False, reason=error.message, remedy=error.remedy)
        return Description(
            True,
            dotted(version),
            f"Apple's container at {cli.program}",
            isolation=Isolation.VM,
            axes=assessing.axes(Spec(network="none")),
            details=details,
        )

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Say what a container gives for the spec."""
        return await assessing.assess(self._cli(), self._settings, spec)

    async def prepare(self, instance: Instance) -> None:
        """See that the image is there, so that nothing is pulled while the container is made."""
        image = assessing.image_of(instance.spec, self._settings)
        if await images.find(self._cli(), image) is not None:
            return
        if not self._settings.pull or image == images.AGENT:
            made = "claw image prepare apple" if image == images.AGENT else None
            raise RuntimeFault(
                f"the image {image} is not there any more",
                remedy=made or f"container image pull {image}",
            )
        await images.pull(self._cli(), instance.host, image)

    async def start(self, instance: Instance) -> None:
        """Make and start the container, whose life from now on hangs on a pipe of this process."""
        cli, live = self._cli().of(instance.host), _Live()
        self._live[instance.name] = live
        token, argv = await self._call(cli, instance)
        async with turn():
            failpoints.hit(_PRE_RUN)
            live.held = await Held.begin([cli.program, *argv], token)
            failpoints.hit(_POST_RUN)
            keeper = await live.held.keeper()
        user = self._settings.identity
        place = Place(cli, instance.host, instance.name, keeper, user)
        await place.begins()
        for mount in container.files(instance.spec):
            await self._copy(place, mount)
        live.place = place
        failpoints.hit(_READY)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command in the container; see the contract."""
        return await Running(self._place(instance), command).run(instance.spec, io)

    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack with the instance's `tar`: what is copied by the service is not seen in mounts."""
        await _unpack(self._place(instance), archive, target)

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Pack with the instance's `tar`: what is copied by the service is not seen in mounts."""
        parent, slash, name = source.rstrip("/").rpartition("/")
        argv = ("tar", "-c", "-f", "-", "-C", parent or slash or ".", "--", name)
        await _transfer(self._place(instance), argv, IO(None, sink, _drop), f"pack {source}")

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """Make an image of the disk; secrets, which are in no file, are not in it."""
        image = assessing.image_of(instance.spec, self._settings)
        return await snapshot.keep(self._place(instance), image, target)

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """The service's own listing of images for inspection."""
        return await images.audits(self._cli(), install)

    async def delete_snapshot(self, name: str) -> None:
        """Remove an image for inspection."""
        await images.remove_audit(self._cli(), name)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        """Look at all of the disk, as root."""
        place = self._place(instance).as_root()

        async def execute(command: Command, io: IO) -> Exit:
            return await Running(place, command).run(Spec(), io)

        return await search(execute, texts)

    async def stop(self, instance: Instance) -> None:
        """End the container, and keep it: nothing of it hangs on this process any more."""
        live = self._live.pop(instance.name, None)
        if live is not None and live.held is not None:
            await live.held.end()
        await halt(self._cli().of(instance.host), instance.name)
        failpoints.hit(_STOPPED)

    async def teardown(self, instance: Instance) -> None:
        """Remove the container with its virtual machine, and believe only the listings."""
        live = self._live.get(instance.name)
        failpoints.hit(_PRE_DELETE)
        if live is not None and live.held is not None and live.place is None:
            live.held.release()  # it may not run yet; so it ends as soon as it does
        try:
            await removal.remove(self._cli().of(instance.host), instance.name)
            failpoints.hit(_REMOVED)
        finally:
            if live is not None and live.held is not None:
                await live.held.end()  # what could not be removed ends at least
        self._live.pop(instance.name, None)

    async def list_instances(self, install: str) -> frozenset[str]:
        """Names in the service's listing, in launchd's, and of calls under way."""
        prefix = f"claw-{install}-"
        return frozenset(
            name for name in await listing.names(self._cli()) if name.startswith(prefix)
        )

    def _cli(self) -> Cli:
        if self._found is None:
            raise ContainerUnavailable(
                "there is no `container` command on PATH",
                remedy="install it from https://github.com/apple/container/releases, "
                "or set the setting command",
            )
        return self._found

    def _place(self, instance: Instance) -> Place:
        live = self._live.get(instance.name)
        if live is None or live.place is None:
            raise RuntimeFault(
                "the instance was not started by this process", remedy="open a session of its own"
            )
        return live.place

    async def _call(self, cli: Cli, instance: Instance) -> tuple[str, list[str]]:
        """What a container says when it runs, and the call that makes it, or starts it again."""
        name = instance.name
        if instance.spec.persistent and name in await listing.containers(cli):
            return await starting.token(cli, name), container.restart(name)
        token = secrets.token_hex(16)
        image = assessing.image_of(instance.spec, self._settings)
        return token, container.arguments(instance, self._settings, image, token)

    async def _copy(self, place: Place, mount: Mount) -> None:
        """Copy a file that cannot be mounted, for the commands' user to read."""
        parent, _, name = mount.target.rstrip("/").rpartition("/")
        archive = pack(mount.source, name)
        await _unpack(place.as_root(), archive, parent or "/", place.user, name)


async def _unpack(
    place: Place, archive: AsyncIterator[bytes], target: str, owner: str = "", name: str = ""
) -> None:
    argv = ("sh", "-c", UPLOAD, "sh", target, owner, name)
    what = f"unpack into {target}"
    done = await _transfer(place, argv, IO(archive, _drop, _drop), what)
    if not done.fed:
        raise RuntimeFault(f"could not {what} as a whole", remedy="try again")


async def _transfer(place: Place, argv: tuple[str, ...], io: IO, what: str) -> Running:
    errors = bytearray()

    async def keep(data: bytes) -> None:
        errors.extend(data[: max(0, 4096 - len(errors))])

    running = Running(place, Command(argv, workdir=container.HOME), BULK)
    ended = await running.run(Spec(), attrs.evolve(io, stderr=keep))
    if ended.code:
        said = errors.decode(errors="replace").strip()
        raise RuntimeFault(
            f"cannot {what} in the instance: {ended.reason or said or f'code {ended.code}'}",
            remedy="check the path, and who may write there; the image needs `tar`",
        )
    return running


async def _drop(data: bytes) -> None:
    """Nobody asked for this output."""
