"""Makes base images: an image is an ordinary session that ends in a snapshot."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs

from claw_core import events
from claw_core.config.config import Config
from claw_core.config.recipe import Recipe, Step
from claw_core.config.settings import Settings, Source
from claw_core.errors import ConfigError, DeadlineExceeded, RuntimeFault, Unsupported
from claw_core.known import canonical
from claw_core.model import Image, Mount, Network
from claw_core.registry import Registry
from claw_core.router import Router
from claw_core.session import Deadlines, Session
from claw_core.tasks import in_thread

FILES: Final = "/files"
"""Where a directory that the caller gives is seen by the steps; they find it in `FILES`."""
PULL_TIMEOUT: Final = 6 * 3600.0
"""Seconds that a runtime has to get what an image starts from: some are tens of gigabytes."""
TAIL: Final = 2000
"""Bytes of a failed step's output that its error tells; the log has all of it."""


@attrs.frozen
class Prepared:
    """An image that was made.

    Attributes:
        image: its name, as `--image` takes it.
        runtime: the runtime that has it.
        log: what the steps wrote.
        seconds: how long it took.
    """

    image: str
    runtime: str
    log: Path
    seconds: float


async def prepare_image(
    runtime: str,
    recipe: Recipe,
    *,
    config: Config | None = None,
    state: Path | None = None,
    image: str | None = None,
    base: str | None = None,
    variables: Mapping[str, str] | None = None,
    files: Path | None = None,
    network: Network | None = None,
    listener: events.Listener = events.ignore,
) -> Prepared:
    """Make an image by a recipe, and look at it in an instance of its own.

    The image exists whole or not at all, whatever ends this process: it is the snapshot of a
    session whose steps and verifications have all succeeded.

    Args:
        runtime: where it is made.
        recipe: what it is made of.
        config: what is configured; of it only the runtime's own table counts, so that no secret,
            variable or mount of ordinary runs gets into an image.
        state: directory of the ledger, as for `Router.open`.
        image: name of the image; None is the recipe's.
        base: what it starts from; None is the recipe's for this runtime.
        variables: replace some of the recipe's.
        files: directory that the steps see, read-only: packages for a machine without a network.
        network: of the steps; None is the recipe's.
        listener: gets every event.

    Raises:
        ConfigError: the recipe has no base for the runtime, or no variable of a name.
        Unsupported: the runtime keeps no snapshots.
        RuntimeFault: a step failed; nothing of it is left but the log.
        ClawError: as `Router.session`.
    """
    started = time.monotonic()
    name = canonical(runtime)
    base = base or recipe.base.get(name)
    if base is None:
        known = ", ".join(sorted(recipe.base)) or "nothing"
        raise ConfigError(
            f"the recipe has no base for {name}, only for {known}",
            remedy=f"name one with --base, or add it to the recipe: base.{name}",
        )
    image = image or recipe.image
    registry = Registry()
    table = _table(config or Config(), name, registry)
    if not registry.resolve(name, table).supports("snapshot"):
        raise Unsupported(
            f"{name} keeps no snapshots, so it can have no image",
            remedy="prepare an image of another runtime",
        )
    env = {**_replaced(recipe.variables, variables or {}), "FILES": FILES if files else ""}
    mounts = [Mount(files.absolute(), FILES, authorised=True)] if files else []
    building = _only(name, {**table, **recipe.runtimes.get(name, {})})
    async with Router.open(state=state, config=building, listener=listener) as router:
        path = router.ledger.state / "images" / f"{re.sub('[^A-Za-z0-9._-]+', '-', image)}.log"
        async with _Kitchen.open(path, listener) as kitchen:
            async with router.session(
                runtime=name,
                image=base,
                mounts=mounts,
                env=env,
                network=network or recipe.network,
                deadlines=Deadlines(prepare=PULL_TIMEOUT),
            ) as session:
                for file in recipe.files:
                    await session.upload(Path(file.source), file.target)
                await kitchen.follow(session, "step", recipe.steps)
                await kitchen.follow(session, "verification", recipe.verify)
                made = await session.snapshot(Image(image))
            await kitchen.look(_only(name, table), state, made, recipe, {**env, "FILES": ""})
    return Prepared(made, name, path, time.monotonic() - started)


@attrs.define(eq=False)
class _Kitchen:
    """Where steps are done: their output goes to a log, and what they are to a listener."""

    path: Path
    _file: IO[bytes]
    _listener: events.Listener
    _tail: bytes = b""
    _left: str = "no image was made"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path, listener: events.Listener) -> AsyncIterator[_Kitchen]:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = await in_thread(path.open, "wb", 0)
        try:
            yield cls(path, file, listener)
        finally:
            await in_thread(file.close)

    async def follow(self, session: Session, kind: str, steps: Sequence[Step]) -> None:
        """Do steps, until one fails.

        Raises:
            RuntimeFault: that one.
        """
        for number, step in enumerate(steps, 1):
            title = f"{kind} {number} of {len(steps)}: {step.name}"
            self._listener(events.Notice(title))
            self._tail = b""
            await in_thread(self._file.write, f"== {title}\n".encode())
            try:
                ended = await session.run(
                    ["sh", "-eu", "-c", step.run],
                    stdout=self._keep,
                    stderr=self._keep,
                    timeout=step.timeout,
                )
            except DeadlineExceeded as error:
                raise self._failed(title, session, str(error.message)) from error
            if ended.code:
                raise self._failed(title, session, ended.reason or f"code {ended.code}")

    async def look(
        self,
        config: Config,
        state: Path | None,
        image: str,
        recipe: Recipe,
        env: Mapping[str, str],
    ) -> None:
        """Verify a finished image as an ordinary run would see it."""
        self._left = f"the image {image} is there"
        async with (
            Router.open(state=state, config=config, listener=self._listener) as router,
            router.session(image=image, env=env) as session,
        ):
            await self.follow(session, "verification of the image", recipe.verify)

    async def _keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:]
        await in_thread(self._file.write, data)

    def _failed(self, title: str, session: Session, how: str) -> RuntimeFault:
        said = self._tail.decode(errors="replace").strip()
        return RuntimeFault(
            f"{title} failed with {how}" + (f"; it said at last:\n{said}" if said else ""),
            runtime=session.relay.name,
            phase="execute",
            instance=session.name,
            cleaned=f"its instance is removed; {self._left}",
            remedy=f"see {self.path} for all that the steps said",
        )


def _only(runtime: str, table: Mapping[str, Any]) -> Config:
    """A configuration of nothing but one runtime: no run may end up on another."""
    return Config.of(Settings(runtime=runtime, runtimes={runtime: table}), "recipe")


def _table(config: Config, runtime: str, registry: Registry) -> Mapping[str, Any]:
    """What is configured for a runtime.

    Raises:
        ConfigProblems: all that is wrong in the configuration.
    """
    merged = config.merged(Source(Settings(), "recipe"), None, registry.names)
    return merged.settings.runtimes.get(runtime, {})


def _replaced(variables: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    for name in given:
        if name not in variables:
            raise ConfigError(
                f"the recipe has no variable {name}",
                remedy=f"it has {', '.join(variables) or 'none'}",
            )
    return {**variables, **given}
