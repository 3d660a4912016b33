"""The engine that `claw run` uses and that other programs embed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from claw_core import events
from claw_core.errors import ConfigError, OutputLimitExceeded, WardenUnavailable
from claw_core.ledger import Intent, Ledger, default_state_directory
from claw_core.model import Exit, Mount, Network, Resources, Spec
from claw_core.registry import Registry
from claw_core.routing import PREFER, choose
from claw_core.runs import Record
from claw_core.session import Deadlines, Session
from claw_core.tasks import in_thread, persist
from claw_core.warden import Warden

if TYPE_CHECKING:
    from claw_core.model import Sink

CAPTURE_LIMIT = 64 << 20
"""Bytes of each stream that a one-shot run keeps in memory before it gives up."""


@attrs.define(eq=False)
class Capture:
    """A sink that keeps everything, up to a limit.

    Raises:
        OutputLimitExceeded: on the chunk that passes the limit.
    """

    limit: int = CAPTURE_LIMIT
    data: bytearray = attrs.field(factory=bytearray, repr=False)

    async def __call__(self, chunk: bytes) -> None:
        """Keep a chunk."""
        if len(self.data) + len(chunk) > self.limit:
            raise OutputLimitExceeded(
                f"the command wrote more than {self.limit} bytes",
                phase="execute",
                remedy="pass a sink as stdout or stderr, which gets the chunks as they come",
            )
        self.data += chunk


@attrs.frozen
class Result:
    """What a one-shot run gave; streams are empty where the caller passed a sink of its own."""

    exit: Exit
    stdout: bytes = attrs.field(repr=False)
    stderr: bytes = attrs.field(repr=False)
    record: Record


@attrs.define(eq=False)
class Router:
    """Opens sessions, each on the runtime that it calls for; get one from `Router.open`."""

    ledger: Ledger
    registry: Registry
    _settings: Mapping[str, Mapping[str, Any]]
    _prefer: Sequence[str]
    _listener: events.Listener
    _warden: asyncio.Task[Warden] | None = attrs.field(init=False, default=None)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        *,
        state: Path | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        prefer: Sequence[str] = PREFER,
        observers: Iterable[object] = (),
        listener: events.Listener = events.ignore,
    ) -> AsyncIterator[Router]:
        """Open the ledger, and hand the instances of dead owners to a warden without waiting.

        Args:
            state: directory of the ledger; None is the user's own, see `CLAW_STATE`.
            settings: one table per runtime name.
            prefer: the order in which runtimes are asked where none is named.
            observers: objects with the `Observer` hooks.
            listener: gets every event.

        Raises:
            LedgerUnavailable: the ledger cannot be used.
        """
        ledger = await in_thread(Ledger.open, state or default_state_directory())
        registry = Registry(tuple(observers), listener)
        router = cls(ledger, registry, settings or {}, prefer, listener)
        try:
            if any(entry.reapable for entry in await in_thread(ledger.scan)):
                (await router.warden()).request_reap()
            yield router
        finally:
            await persist(router._close())

    @contextlib.asynccontextmanager
    async def session(
        self,
        *,
        runtime: str | None = None,
        group: str | None = None,
        image: str | None = None,
        mounts: Iterable[Mount] = (),
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        network: Network | None = None,
        resources: Resources | None = None,
        workdir: str | None = None,
        deadlines: Deadlines | None = None,
    ) -> AsyncIterator[Session]:
        """Open one instance for the length of the block.

        Args:
            runtime: name of the runtime; None takes the first of `prefer` that accepts the run.
            group: the group it runs for.
            image: what the runtime starts from.
            mounts: host paths that the instance sees.
            env: environment of every command.
            secrets: name -> value; delivered in memory, never stored or logged.
            network: `none` or `default`; None is the runtime's choice.
            resources: upper bounds.
            workdir: directory in which commands start.
            deadlines: upper bounds for what the runtime does.

        Raises:
            Refused: no runtime accepts the run; nothing was started.
            LedgerUnavailable: the intent cannot be made durable; nothing was started.
            WardenUnavailable: nobody would clean up after a crash; nothing was started.
            TeardownFailed: the instance could not be torn down verifiably.
        """
        secrets = dict(secrets or {})
        spec = Spec(
            group=group,
            image=image,
            mounts=tuple(mounts),
            env=dict(env or {}),
            secrets=tuple(secrets),
            network=network,
            resources=resources or Resources(),
            workdir=workdir,
        )
        self._check(spec)
        warden = self._start_warden()
        route, relay = await choose(
            self.registry, spec, runtime, settings=self._settings, prefer=self._prefer
        )
        if not route.assessment.dies_with_owner:
            await (await asyncio.shield(warden)).ensure()
        for note in route.assessment.notes:
            self._listener(events.Notice(note))
        intent = Intent.new(
            install=self.ledger.install,
            runtime=route.runtime,
            settings=dict(route.settings),
            group=group,
            image=image,
            settle=route.assessment.settle,
        )
        session = Session(
            relay,
            route,
            spec,
            self.ledger,
            intent,
            secrets,
            self._listener,
            deadlines or Deadlines(),
        )
        async with session:
            yield session
        if session.record.teardown == "limbo":
            (await self.warden()).request_reap()

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | AsyncIterator[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        **options: Any,
    ) -> Result:
        """Run one command in an instance of its own, and return when that instance is gone.

        Args:
            argv: program and arguments.
            stdin: what the command reads.
            stdout: a sink, or None to keep the output in the result (up to `CAPTURE_LIMIT` bytes).
            stderr: the same for standard error.
            timeout: seconds until the command is stopped.
            idle_timeout: seconds without output until it is stopped.
            **options: everything that `session` takes.

        Raises:
            ClawError: as `session` and `Session.run`.
        """
        kept_stdout, kept_stderr = Capture(), Capture()
        async with self.session(**options) as session:
            ended = await session.run(
                argv,
                stdin=stdin,
                stdout=stdout or kept_stdout,
                stderr=stderr or kept_stderr,
                timeout=timeout,
                idle_timeout=idle_timeout,
            )
        return Result(ended, bytes(kept_stdout.data), bytes(kept_stderr.data), session.record)

    async def warden(self) -> Warden:
        """Return the warden of this process, started once and started again when it has died.

        Raises:
            WardenUnavailable: it cannot be started.
        """
        warden = await asyncio.shield(self._start_warden())
        await warden.ensure()
        return warden

    def _start_warden(self) -> asyncio.Task[Warden]:
        failed = (
            self._warden is not None
            and self._warden.done()
            and (self._warden.cancelled() or self._warden.exception() is not None)
        )
        if self._warden is None or failed:
            self._warden = asyncio.create_task(Warden.start(self.ledger.state))
            self._warden.add_done_callback(self._warn)
        return self._warden

    def _warn(self, task: asyncio.Task[Warden]) -> None:
        """Say that there is no warden; who needs one gets the error itself."""
        if not task.cancelled() and task.exception() is not None:
            self._listener(events.Notice(f"no warden: {task.exception()}"))

    async def _close(self) -> None:
        if self._warden is None:
            return
        try:
            warden = await self._warden
        except WardenUnavailable:
            return  # said when it happened
        if any(entry.reapable for entry in await in_thread(self.ledger.scan)):
            warden.hand_over()
        else:
            await warden.close()

    def _check(self, spec: Spec) -> None:
        """Refuse what no runtime may do, before anything is started."""
        texts = {**spec.env, **dict.fromkeys(spec.secrets, "")}
        for name, value in texts.items():
            if not name or "=" in name or "\0" in name + value:
                raise ConfigError(
                    f"{name!r} cannot be an environment variable",
                    remedy="names have no `=`; names and values have no NUL byte",
                )
        state = self.ledger.state.resolve()
        for mount in spec.mounts:
            if not mount.source.exists():
                raise ConfigError(
                    f"cannot mount {str(mount.source)!r}: it does not exist",
                    remedy="create it first, or correct the path",
                )
            parts = mount.target.split("/")
            if not mount.target.startswith("/") or ".." in parts or "\0" in mount.target:
                raise ConfigError(
                    f"cannot mount at {mount.target!r}",
                    remedy="the target is an absolute path inside the instance, without `..`",
                )
            source = mount.source.resolve()
            if mount.writable and (state == source or source in state.parents):
                raise ConfigError(
                    f"a writable mount of {str(source)!r} contains the ledger {str(state)!r}",
                    remedy="mount it read-only, or mount a directory below it",
                )
