"""The `docker` runtime: an instance is a container of an engine."""

from __future__ import annotations

import functools
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import attrs

from claw_core import failpoints
from claw_core.errors import ClawError, ConfigError, RuntimeFault
from claw_core.hookspecs import AGENT, Runtime
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
from claw_core.search import search_in
from claw_runtime_docker import assessing, fence, images, starting
from claw_runtime_docker.commands import Running
from claw_runtime_docker.connection import Connection
from claw_runtime_docker.container import HOME, Abilities, create_body
from claw_runtime_docker.creation import create, taken
from claw_runtime_docker.endpoint import resolve
from claw_runtime_docker.engine import Engine
from claw_runtime_docker.errors import NOT_FOUND, EngineBroken, EngineError
from claw_runtime_docker.patience import answered
from claw_runtime_docker.place import Place
from claw_runtime_docker.settings import Settings

_PRE_CREATE = failpoints.declare("docker.pre-create", "the container is about to be created")
_POST_CREATE = failpoints.declare("docker.post-create", "the container exists, not started")
_PRE_START = failpoints.declare("docker.pre-start", "its standard input is held, not started")
_POST_START = failpoints.declare("docker.post-start", "it takes commands")
_STOPPED = failpoints.declare("docker.stopped", "it has ended, and its disk is kept")
_PRE_DELETE = failpoints.declare("docker.pre-delete", "the container is about to be removed")
_REMOVED = failpoints.declare("docker.removed", "nothing of its name is left or can come")


@attrs.define(eq=False)
class _Live:
    """What this process knows about an instance of its own.

    Attributes:
        token: what ends the secrets that its keeper is told.
        unknown: whether its creation was asked for without an answer.
        held: the dead-man's switch.
        place: where commands run, once it takes some.
    """

    token: str
    unknown: bool = True
    held: Connection | None = None
    place: Place | None = None


class DockerRuntime(Runtime):
    """Containers of an engine that speaks Docker's API.

    Args:
        settings: see `Settings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """

    recipe = AGENT

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = Settings.parse(settings)
        self._live: dict[str, _Live] = {}
        self._found: Engine | ConfigError
        try:
            endpoint = resolve(self._settings.host, self._settings.context, os.environ)
        except ConfigError as error:  # told by whoever needs the engine, not by a listing
            self._found = error
        else:
            self._found = Engine(endpoint)
            # A reaper, in whatever environment, must look where the container was created.
            settings = {key: value for key, value in settings.items() if key != "context"}
            settings["host"] = str(endpoint)
        super().__init__(settings)

    async def describe(self) -> Description:
        """Say which engine answers, and what it can isolate at best."""
        try:
            engine = self._engine()
            info = await engine.info()
            details = await assessing.details(engine, info, self._settings)
        except ClawError as error:
            return Description(False, reason=error.message, remedy=error.remedy)
        return Description(
            True,
            str(info.get("ServerVersion")),
            f"{'Podman' if engine.podman else 'Docker'} at {engine.endpoint}",
            isolation=assessing.level(info, self._settings),
            axes=assessing.axes(info, Spec(network="none")),
            details=details,
        )

    async def assess(self, spec: Spec) -> Assessment | Refusal:
        """Say what a container of this engine gives for the spec."""
        return await assessing.assess(self._engine(), self._settings, spec)

    async def prepare(self, instance: Instance) -> None:
        """Create the container, after its image was pulled where that is missing."""
        engine = self._engine()
        image = assessing.image_of(instance.spec, self._settings)
        able = await Abilities.of(engine)
        live = self._live[instance.name] = _Live(secrets.token_hex(16))
        kept = instance.spec.persistent or images.is_audit(image)
        body = create_body(instance, self._settings, image, live.token, able, on_disk=kept)
        failpoints.hit(_PRE_CREATE)
        try:
            await answered(_create(engine, live, instance.name, body))
        except EngineError as error:
            if error.status != NOT_FOUND or not self._settings.pull or image == images.AGENT:
                raise
            await images.pull(engine, image, instance.host.progress)
            await answered(_create(engine, live, instance.name, body))
        failpoints.hit(_POST_CREATE)
        if kept:
            from claw_runtime_docker import disk  # most containers keep nothing

            await disk.furnish(engine, instance.name, instance.spec, self._settings)

    async def start(self, instance: Instance) -> None:
        """Start the container, whose life from now on hangs on a socket of this process."""
        engine, live = self._engine(), self._live.get(instance.name)
        if live is None:  # it was stopped
            token = await starting.token(engine, instance.name)
            live = self._live[instance.name] = _Live(token, unknown=False)
        secret = {name: instance.host.secret(name) for name in instance.spec.secrets}
        live.held = await engine.hijack(
            f"/containers/{instance.name}/attach",
            {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1},
        )
        failpoints.hit(_PRE_START)
        keeper = await starting.begin(engine, live.held, instance.name, live.token, secret)
        live.place = Place(engine, instance.name, keeper)
        failpoints.hit(_POST_START)

    async def execute(self, instance: Instance, command: Command, io: IO) -> Exit:
        """Run a command in the container; see the contract."""
        place = self._living(instance).place
        if place is None:
            raise RuntimeFault("the instance was not started", remedy="open a session of its own")
        return await Running(place, command).run(instance.spec, io)

    async def upload(self, instance: Instance, archive: AsyncIterator[bytes], target: str) -> None:
        """Unpack with the instance's `tar`: an engine's own copying does not reach its memory."""
        program = 'mkdir -p -- "$1" && exec tar -x -o -f - -C "$1"'
        command = Command(("sh", "-c", program, "sh", target), workdir=HOME)
        await self._transfer(instance, command, IO(archive, _drop, _drop), f"unpack into {target}")

    async def download(self, instance: Instance, source: str, sink: Sink) -> None:
        """Pack with the instance's `tar`: an engine's own copying does not reach its memory."""
        parent, slash, name = source.rstrip("/").rpartition("/")
        argv = ("tar", "-c", "-f", "-", "-C", parent or slash or ".", "--", name)
        await self._transfer(
            instance, Command(argv, workdir=HOME), IO(None, sink, _drop), f"pack {source}"
        )

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        """Commit the container to an image; secrets, which lie in memory, are not in it."""
        engine = self._engine()
        image = assessing.image_of(instance.spec, self._settings)
        name = await images.commit(engine, instance.name, image, target)
        changed = await images.changes(engine, instance.name)
        instance.host.progress(f"{name}: {len(changed)} paths differ from {image}")
        return name

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        """The engine's own listing of images for inspection."""
        return await images.audits(self._engine(), install)

    async def delete_snapshot(self, name: str) -> None:
        """Remove an image for inspection."""
        await images.remove_audit(self._engine(), name)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        """Look into those files that differ from the image: nothing else is the instance's."""
        changed = await images.changes(self._engine(), instance.name)
        execute = functools.partial(self.execute, instance)
        return await search_in(execute, sorted(changed), texts)

    async def stop(self, instance: Instance) -> None:
        """End the container, and keep it: without its own standard input it would not go on."""
        engine = self._engine()
        await starting.end(engine, instance.name)
        failpoints.hit(_STOPPED)
        live = self._live.pop(instance.name, None)
        if live is not None and live.held is not None:
            live.held.close()

    async def teardown(self, instance: Instance) -> None:
        """Remove the container, and keep one whose creation is under way from coming."""
        live = self._live.get(instance.name)
        engine = self._engine()
        failpoints.hit(_PRE_DELETE)
        if live is None or live.unknown:
            await fence.fence(
                engine, instance.name, assessing.image_of(instance.spec, self._settings)
            )
        else:
            await fence.remove(engine, instance.name)
        failpoints.hit(_REMOVED)
        if live is not None and live.held is not None:
            live.held.close()
        self._live.pop(instance.name, None)

    async def list_instances(self, install: str) -> frozenset[str]:
        """The engine's own listing of all containers in every state, by name."""
        engine = self._engine()
        prefix = f"claw-{install}-"
        filters = json.dumps({"name": [prefix]})
        found = await engine.call("GET", "/containers/json", {"all": 1, "filters": filters})
        if not isinstance(found, list):
            raise EngineBroken(f"the engine at {engine.endpoint} gave no listing")
        names = (name.lstrip("/") for one in found for name in one.get("Names") or ())
        return frozenset(name for name in names if name.startswith(prefix))

    def _engine(self) -> Engine:
        if isinstance(self._found, ConfigError):
            raise self._found
        return self._found

    def _living(self, instance: Instance) -> _Live:
        try:
            return self._live[instance.name]
        except KeyError:
            raise RuntimeFault(
                "the instance was not made by this process", remedy="open a session of its own"
            ) from None

    async def _transfer(self, instance: Instance, command: Command, io: IO, what: str) -> None:
        errors = bytearray()

        async def keep(data: bytes) -> None:
            errors.extend(data[: max(0, 4096 - len(errors))])

        ended = await self.execute(instance, command, attrs.evolve(io, stderr=keep))
        if ended.code:
            said = errors.decode(errors="replace").strip()
            raise RuntimeFault(
                f"cannot {what} in the instance: {ended.reason or said or f'code {ended.code}'}",
                remedy="check the path; the image needs `tar`, and may be read-only there",
            )


async def _create(engine: Engine, live: _Live, name: str, body: dict[str, Any]) -> None:
    """Create a container, and note that what is there is known."""
    live.unknown = True
    try:
        await create(engine, name, body, timeout=120)
    except EngineError as error:
        live.unknown = taken(error)
        raise
    live.unknown = False


async def _drop(data: bytes) -> None:
    """Nobody asked for this output."""
