"""The engine that `claw run` uses and that other programs embed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from claw_core import events
from claw_core.capture import Capture
from claw_core.config.config import Config
from claw_core.config.settings import Settings, Size, Source, Variables
from claw_core.config.sources import RUNTIME_SECRETS
from claw_core.errors import ClawError, ConfigProblems, Refused, WardenUnavailable
from claw_core.ledger import Intent, Ledger, default_state_directory
from claw_core.model import Exit, Mount, Network, Resources, Spec
from claw_core.mounts import MountPolicy, NotGranted
from claw_core.redaction import Redactor, redacted
from claw_core.registry import Registry, load_observers
from claw_core.request import (
    ASKED,
    folder_mount,
    granted_of,
    secret_values,
    spec_for,
    workspace_mount,
)
from claw_core.routing import Route, choose
from claw_core.session import Deadlines, Session
from claw_core.tasks import in_thread, persist
from claw_core.trust import TrustStore
from claw_core.warden import Warden

if TYPE_CHECKING:
    from claw_core.config.config import Group
    from claw_core.config.settings import Merged
    from claw_core.model import Sink
    from claw_core.relay import Relay
    from claw_core.runs import Record


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
    config: Config
    redact: Redactor
    _listener: events.Listener
    _policy: MountPolicy = attrs.field(init=False)
    _folders: dict[str, tuple[Group, Mount]] = attrs.field(init=False, factory=dict)
    _relays: dict[tuple[str, str], Relay | ClawError] = attrs.field(init=False, factory=dict)
    _warden: asyncio.Task[Warden] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        policy = self.config.policy
        state = str(self.ledger.state)
        self._policy = attrs.evolve(policy, protected=(*policy.protected, state))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        *,
        state: Path | None = None,
        config: Config | None = None,
        observers: Iterable[object] = (),
        listener: events.Listener = events.ignore,
    ) -> AsyncIterator[Router]:
        """Open the ledger, and hand the instances of dead owners to a warden without waiting.

        Args:
            state: directory of the ledger; None is the user's own, see `CLAW_STATE`.
            config: what is configured, see `Config.load` and `Config.of`; with one that was loaded,
                the observers that are installed are held as well. None configures nothing.
            observers: objects with the `Observer` hooks, outside of the installed ones.
            listener: gets every event, without the value of any secret.

        Raises:
            LedgerUnavailable: the ledger cannot be used.
            PluginError: an observer that is required is broken or not installed.
        """
        config = config or Config()
        redact = Redactor()
        listener = redact.events(listener)
        ledger = await in_thread(Ledger.open, state or default_state_directory())
        if config.file is not None:
            observers = (*observers, *_installed_observers(config, listener))
        router = cls(ledger, Registry(observers, listener), config, redact, listener)
        with redact.logging():
            try:
                if any(entry.reapable for entry in await in_thread(ledger.scan)):
                    (await router.warden()).request_reap()
                yield router
            finally:
                await persist(router._close())

    async def route(
        self, group: str | None = None, *, workspace: Path | None = None, **asked: Any
    ) -> Route:
        """Decide where a run would go, and start nothing.

        Args:
            group: the group it would run for.
            workspace: as for `session`.
            **asked: what `session` takes, as far as it says what an instance shall be.

        Raises:
            ConfigProblems: all that is wrong in the configuration.
            Refused: no runtime accepts the run.
        """
        found = await self._group(group)
        merged = self._merged(found, _asked(**asked))
        with redacted(self.redact):
            spec = self._spec(found, group, merged, workspace)
            route, _ = await self._decide(spec, merged)
            secret_values(self.config, merged, route.runtime, {})
        return route

    async def merged(self, group: str | None = None, **asked: Any) -> Merged:
        """Return every setting that holds for a run, with its origin; arguments as for `route`.

        Raises:
            ConfigProblems: all that is wrong in the configuration.
        """
        return self._merged(await self._group(group), _asked(**asked))

    async def pending(self, group: str | None) -> list[str] | None:
        """Return what a group's file asks for beyond what was accepted; None before its first use.

        Raises:
            ConfigProblems: all that is wrong in the configuration.
        """
        trust, found = self.trust(), await self._group(group)
        return None if trust is None or found is None else await in_thread(trust.pending, found)

    @contextlib.asynccontextmanager
    async def session(
        self,
        *,
        group: str | None = None,
        runtime: str | None = None,
        image: str | None = None,
        mounts: Iterable[Mount] = (),
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | Iterable[str] = (),
        network: Network | None = None,
        resources: Resources | None = None,
        workdir: str | None = None,
        workspace: Path | None = None,
        deadlines: Deadlines | None = None,
    ) -> AsyncIterator[Session]:
        """Open one instance for the length of the block.

        What is given here is stronger than what is configured.

        Args:
            group: the group it runs for; with a configuration that was loaded, its folder is to be
                seen at `/workspace/group`, writable.
            runtime: name of the runtime; None takes the group's.
            image: what the runtime starts from.
            mounts: host paths that the instance sees; each below an allowed root of the
                configuration, unless it is `authorised`.
            env: environment of every command.
            secrets: name -> value, or names whose values are in the environment or `.env`;
                delivered in memory, never stored or logged.
            network: `none` or `default`; None is the runtime's choice.
            resources: upper bounds.
            workdir: directory in which commands start.
            workspace: directory to be seen at `/workspace`, read-only, unless a mount goes there,
                it is a group's run, or the directory is the home or the root.
            deadlines: upper bounds for what the runtime does.

        Raises:
            ConfigProblems: all that is wrong in the configuration; nothing was started.
            Untrusted: the group's file asks for more than was accepted; nothing was started.
            Refused: no runtime accepts the run; nothing was started.
            LedgerUnavailable: the intent cannot be made durable; nothing was started.
            WardenUnavailable: nobody would clean up after a crash; nothing was started.
            TeardownFailed: the instance could not be torn down verifiably.
        """
        given = dict(secrets) if isinstance(secrets, Mapping) else {}
        self.redact.learn(given)
        asked = _asked(runtime, image, mounts, env, tuple(secrets), network, resources, workdir)
        with redacted(self.redact):
            found = await self._group(group)
            merged = self._merged(found, asked)
            spec = await self._trusted(found, group, merged, workspace)
            warden = self._start_warden()
            route, relay = await self._decide(spec, merged)
            values = secret_values(self.config, merged, route.runtime, given)
            await self._remember(found, merged, spec)
            if not route.assessment.dies_with_owner:
                await (await asyncio.shield(warden)).ensure()
            session = self._session(route, relay, values, deadlines or Deadlines())
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
            timeout: seconds until the command is stopped; None is what is configured.
            idle_timeout: seconds without output until it is stopped; None is what is configured.
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

    def trust(self) -> TrustStore | None:
        """What was accepted of the groups' own files; None where groups are only labels."""
        if self.config.root is None:
            return None
        return TrustStore(self.ledger.state, self.ledger.install, self.config.root)

    async def warden(self) -> Warden:
        """Return the warden of this process, started once and started again when it has died.

        Raises:
            WardenUnavailable: it cannot be started.
        """
        warden = await asyncio.shield(self._start_warden())
        await warden.ensure()
        return warden

    async def _group(self, name: str | None) -> Group | None:
        """The group as its files stand now; reading them is work only where they have changed."""
        if name is None:
            return None
        return self.config.known_group(name) or await in_thread(self.config.group, name)

    def _merged(self, group: Group | None, asked: Settings) -> Merged:
        """Join all settings, and learn the secrets that they name before anything is said."""
        merged = self.config.merged(Source(asked, ASKED), group, self.registry.names)
        names = (*merged.settings.secrets, *sum(RUNTIME_SECRETS.values(), ()))
        available = self.config.secrets
        self.redact.learn({name: available[name] for name in names if name in available})
        return merged

    def _spec(
        self, group: Group | None, name: str | None, merged: Merged, workspace: Path | None
    ) -> Spec:
        implicit = None
        if group is not None and self.config.root is not None:
            implicit = self._folder(group)
        elif workspace is not None:
            implicit = workspace_mount(self._policy, workspace, merged)
        return spec_for(self._policy, merged, name, implicit)

    async def _trusted(
        self, group: Group | None, name: str | None, merged: Merged, workspace: Path | None
    ) -> Spec:
        """The spec, when the group's own file asks for nothing that was not accepted."""
        trust = self.trust()
        if group is None or trust is None:
            return self._spec(group, name, merged, workspace)
        try:
            spec = self._spec(group, name, merged, workspace)
        except ConfigProblems:
            await in_thread(trust.check, group)  # a change that was not accepted says more
            raise
        await in_thread(trust.check, group, granted_of(group, merged, spec))
        return spec

    async def _remember(self, group: Group | None, merged: Merged, spec: Spec) -> None:
        trust = self.trust()
        if group is not None and trust is not None:
            await in_thread(trust.remember, group, granted_of(group, merged, spec))

    async def _decide(self, spec: Spec, merged: Merged) -> tuple[Route, Relay]:
        """Choose, and keep secrets out of what the runtimes said."""
        route, relay = await choose(self._relay, spec, merged)
        if route.others or route.assessment.notes:
            notes = tuple(map(self.redact, route.assessment.notes))
            route = attrs.evolve(
                route,
                assessment=attrs.evolve(route.assessment, notes=notes),
                others=tuple(one.redacted(self.redact) for one in route.others),
            )
        return route, relay

    def _folder(self, group: Group) -> Mount:
        """The mount of a group's folder, granted once for as long as the group stays the same."""
        known = self._folders.get(group.name)
        if known is None or known[0] is not group:
            try:
                known = group, self._policy.resolve(folder_mount(group))
            except NotGranted as error:
                raise ConfigProblems.of(
                    [f"groups/{group.name}: {error} ({error.remedy})"]
                ) from None
            self._folders[group.name] = known
        return known[1]

    def _relay(self, name: str, settings: Mapping[str, Any]) -> Relay:
        """The relay of a runtime, made once for the same settings."""
        key = name, json.dumps(settings, sort_keys=True, default=repr) if settings else ""
        known = self._relays.get(key)
        if known is None:
            try:
                known = self.registry.resolve(name, settings)
            except ClawError as error:
                known = error  # what is not installed now is not installed for the next run either
            self._relays[key] = known
        if isinstance(known, ClawError):
            raise known.with_traceback(None)
        return known

    def _session(
        self, route: Route, relay: Relay, secrets: Mapping[str, str], deadlines: Deadlines
    ) -> Session:
        for note in _notes(route):
            self._listener(events.Notice(note))
        intent = Intent.new(
            install=self.ledger.install,
            runtime=route.runtime,
            settings=dict(route.settings),
            group=route.spec.group,
            image=route.spec.image,
            settle=route.assessment.settle,
        )
        return Session(
            relay, route, route.spec, self.ledger, intent, secrets, self._listener, deadlines
        )

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


def _asked(
    runtime: str | None = None,
    image: str | None = None,
    mounts: Iterable[Mount] = (),
    env: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    network: Network | None = None,
    resources: Resources | None = None,
    workdir: str | None = None,
) -> Settings:
    """What a caller asks for, as the strongest of all settings."""
    resources = resources or Resources()
    return Settings(
        runtime=runtime,
        image=image,
        network=network,
        cpus=resources.cpus,
        memory=None if resources.memory is None else Size(resources.memory),
        processes=resources.processes,
        workdir=workdir,
        secrets=tuple(secrets),
        mounts=tuple(mounts),
        env=Variables(dict(env or {})),
    )


def _notes(route: Route) -> Iterable[str]:
    """What the user should know about a decision before it takes effect."""
    if route.why.startswith("in place of"):
        first = route.others[0]
        yield f"{first.runtime} cannot run this: {first.refusal.reason}; {route.runtime} does it"
    yield from route.assessment.notes


def _installed_observers(config: Config, listener: events.Listener) -> Iterable[object]:
    """Load the observers that are installed; one that is broken counts where it is required."""
    broken = {}

    def report(error: Any) -> None:
        broken[error.runtime] = error
        listener(events.Notice(str(error)))

    found = load_observers(report)
    for name in config.required_observers:
        if name in broken:
            raise broken[name]
        if name not in found:
            raise Refused(
                f"the observer {name} is required, and is not installed",
                remedy="install it, or take it out of required_observers in claw.toml",
            )
    return found.values()
