"""The engine that `claw run` uses and that other programs embed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from claw_core import events
from claw_core.capture import Capture
from claw_core.config.config import Config
from claw_core.errors import CapacityExhausted, ClawError, Refused, WardenUnavailable
from claw_core.keeping import Keeping
from claw_core.ledger import Intent, Ledger, default_state_directory
from claw_core.model import Exit, Mount, Network, Refusal, Resources, Spec
from claw_core.planner import Planner
from claw_core.redaction import Redactor, redacted
from claw_core.registry import Registry, load_observers
from claw_core.request import asked_for, secret_values
from claw_core.routing import Route
from claw_core.session import Deadlines, Session
from claw_core.tasks import in_thread, persist
from claw_core.warden import Warden

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.entry import Entry
    from claw_core.model import Sink
    from claw_core.relay import Relay
    from claw_core.runs import Record

RETENTION_TIMEOUT: Final = 60.0
"""Seconds that the deletion of snapshots has, which are too many, at the end of a session."""


FULL_PAUSE = 5.0
"""Seconds until a runtime is asked again that said that the machine is full."""


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
    planner: Planner
    redact: Redactor
    _listener: events.Listener
    _warden: asyncio.Task[Warden] | None = attrs.field(init=False, default=None)
    _left: set[str] = attrs.field(init=False, factory=set)

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
        planner = Planner(config, Registry(observers, listener), ledger, redact)
        router = cls(ledger, planner, redact, listener)
        with redact.logging():
            try:
                if any(entry.reapable for entry in await in_thread(ledger.scan)):
                    (await router.warden()).request_reap()
                yield router
            finally:
                await persist(router._close())

    async def route(
        self,
        group: str | None = None,
        *,
        workspace: Path | None = None,
        folder: bool = True,
        **asked: Any,
    ) -> Route:
        """Decide where a run would go, and start nothing.

        Args:
            group: the group it would run for.
            workspace: as for `session`.
            folder: as for `session`.
            **asked: what `session` takes, as far as it says what an instance shall be.

        Raises:
            ConfigProblems: all that is wrong in the configuration.
            Refused: no runtime accepts the run.
        """
        with redacted(self.redact):
            plan = await self.planner.plan(group, asked_for(**asked))
            spec = self.planner.spec(plan, workspace, folder=folder)
            route, _ = await self.planner.decide(plan, spec)
            secret_values(self.planner.config, plan.merged, route.runtime, {})
        return route

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
        folder: bool = True,
        deadlines: Deadlines | None = None,
        agent: Agent | None = None,
        keeping: Keeping | None = None,
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
            folder: whether the group's folder is to be seen; a host that lays out the mounts of its
                groups itself says no.
            deadlines: upper bounds for what the runtime does.
            agent: who is to work in it: its variables are set, those of its secrets that are
                available are passed on, and without a word about the network it gets one.
            keeping: what is to be kept at the end, and when; None keeps nothing.

        Raises:
            ConfigProblems: all that is wrong in the configuration; nothing was started.
            Untrusted: the group's file asks for more than was accepted; nothing was started.
            Refused: no runtime accepts the run; nothing was started.
            LedgerUnavailable: the intent cannot be made durable; nothing was started.
            WardenUnavailable: nobody would clean up after a crash; nothing was started.
            CapacityExhausted: others did not make room in time; nothing is left.
            TeardownFailed: the instance could not be torn down verifiably.
            NotKept: what was to be kept was not; the instance is gone.
        """
        keeping = keeping or Keeping()
        given = dict(secrets) if isinstance(secrets, Mapping) else {}
        self.redact.learn(given)
        asked = asked_for(runtime, image, mounts, env, tuple(secrets), network, resources, workdir)
        with redacted(self.redact):
            plan = await self.planner.plan(group, asked, agent)
            spec = await self.planner.trusted_spec(plan, workspace, folder=folder)
            if keeping.needs:
                spec = attrs.evolve(spec, persistent=True)
            warden = self._start_warden()
            route, relay = await self.planner.decide(plan, spec, keeping.needs)
            values = secret_values(self.planner.config, plan.merged, route.runtime, given)
            await self.planner.remember(plan, spec)
            if not route.assessment.dies_with_owner:
                await (await asyncio.shield(warden)).ensure()
            limits = deadlines or Deadlines()

            def make() -> Session:
                return self._session(route, relay, values, limits, keeping)

            async with self._opened(make) as session:
                yield session

    @contextlib.asynccontextmanager
    async def reopen(
        self,
        entry: Entry,
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        deadlines: Deadlines | None = None,
        keeping: Keeping | None = None,
    ) -> AsyncIterator[Session]:
        """Start an instance that is kept, for the length of the block, with the disk that it has.

        Killed meanwhile, it leaves an instance that is torn down.

        Args:
            entry: of the instance.
            env: environment of every command; that of before is not kept.
            workdir: directory in which commands start.
            deadlines: upper bounds for what the runtime does.
            keeping: what is to be kept at the end; None: the instance, for as long as by default.

        Raises:
            ClawError: it is not kept, or somebody else has it; nothing was started.
            Refused: the runtime cannot run it as it is; it stays as it is.
            NotKept: it could not be kept again, and is gone.
        """
        intent = entry.intent
        if intent is None or entry.state != "held":
            raise ClawError(
                f"it is not kept: its state is {entry.state!r}",
                instance=entry.name,
                remedy="see `claw ps`",
            )
        spec = Spec(intent.group, intent.image, env=env or {}, workdir=workdir, persistent=True)
        with redacted(self.redact):
            relay = self.planner.registry.resolve(intent.runtime, intent.settings)
            answer = await relay.assess(spec)
            if isinstance(answer, Refusal):
                raise Refused(answer.reason, runtime=relay.name, remedy=answer.remedy)
            await self.warden()
            route = Route(intent.runtime, relay.settings, answer, "it was kept", spec)

            def make() -> Session:
                return Session(
                    relay=relay,
                    route=route,
                    spec=spec,
                    ledger=self.ledger,
                    intent=intent,
                    secrets={},
                    listener=self._listener,
                    deadlines=deadlines or Deadlines(),
                    keeping=keeping or Keeping(instance="always"),
                    kept=entry,
                )

            async with self._opened(make) as session:
                yield session

    @contextlib.asynccontextmanager
    async def _opened(self, make: Callable[[], Session]) -> AsyncIterator[Session]:
        """Open a session, and see to what it leaves."""
        session = await self._entered(make)
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_exit(session)
                yield session
        except BaseException:
            with contextlib.suppress(asyncio.CancelledError):  # the other error ends us as well
                await self._see_to(session)
            raise
        await self._see_to(session)

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

    async def warden(self) -> Warden:
        """Return the warden of this process, started once and started again when it has died.

        Raises:
            WardenUnavailable: it cannot be started.
        """
        warden = await asyncio.shield(self._start_warden())
        await warden.ensure()
        return warden

    def tell(self, text: str) -> None:
        """Tell the listener something that the user should know."""
        self._listener(events.Notice(text))

    def _session(
        self,
        route: Route,
        relay: Relay,
        secrets: Mapping[str, str],
        deadlines: Deadlines,
        keeping: Keeping,
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
            relay=relay,
            route=route,
            spec=route.spec,
            ledger=self.ledger,
            intent=intent,
            secrets=secrets,
            listener=self._listener,
            deadlines=deadlines,
            keeping=keeping,
        )

    async def _entered(self, make: Callable[[], Session]) -> Session:
        """Enter a session; where the machine is full a new one again, as long as that may take."""
        started = time.monotonic()
        while True:
            session = make()
            try:
                return await session.__aenter__()
            except CapacityExhausted as error:
                if error.phase is None:
                    raise  # of the queue itself: it has waited long enough, or would for ever
                if time.monotonic() - started > session.deadlines.capacity:
                    raise
                self._listener(events.Notice(f"waiting for others to end: {error}"))
            finally:
                if not session.open:
                    await self._see_to(session)
            await asyncio.sleep(FULL_PAUSE)

    async def _see_to(self, session: Session) -> None:
        """Hand over what a session had to leave, and keep no more snapshots than are wanted."""
        if session.record.teardown not in {"gone", "pending", "held"}:
            self._left.add(session.name)
            await persist(self._request_reap())
        if session.record.snapshot is not None:
            await persist(self._retain(), 1)

    async def _request_reap(self) -> None:
        """Let the warden see to what a session had to leave: this process may live on for long."""
        try:
            (await self.warden()).request_reap()
        except WardenUnavailable as error:  # what happened to the session is what matters
            self._listener(events.Notice(f"left to the next claw process: {error}"))

    async def _retain(self) -> None:
        """Delete the snapshots that are too much, now that there is another one."""
        from claw_core.snapshots import Snapshots  # most sessions keep none

        snapshots = Snapshots(self.ledger, self.planner.registry.resolve)
        try:
            async with asyncio.timeout(RETENTION_TIMEOUT):
                said = await snapshots.retain(self.planner.config.retention)
            for text in said:
                self._listener(events.Notice(text))
        except (ClawError, OSError) as error:  # the session is over, and its snapshot is there
            self._listener(events.Notice(f"too old snapshots cannot be looked for: {error}"))

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
        entries = await in_thread(self.ledger.scan)
        # What a reaper is busy with is not reapable now, and may be so again when it has failed.
        if any(entry.reapable or entry.name in self._left for entry in entries):
            warden.hand_over()
        else:
            await warden.close()


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
