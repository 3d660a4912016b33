"""The live span of one instance: the only place that orders phases.

prepare -> start -> (upload, execute, download)* -> [snapshot] -> teardown
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

import attrs

from claw_core import events
from claw_core.deadline import CommandDeadline
from claw_core.endpoint import Endpoint
from claw_core.errors import (
    ClawError,
    ConfigError,
    DeadlineExceeded,
    SpentInstance,
    TeardownFailed,
    Unsupported,
)
from claw_core.host import Host
from claw_core.model import IO, Audit, Command, Control, Exit, Image, Instance, Resize, Sink, Spec
from claw_core.runs import Record, append
from claw_core.tasks import in_thread, persist
from claw_core.teardown import destroy

if TYPE_CHECKING:
    from claw_core.intent import Intent
    from claw_core.lease import Lease
    from claw_core.ledger import Ledger
    from claw_core.relay import Relay
    from claw_core.routing import Route
    from claw_core.slots import Ticket

T = TypeVar("T")
Output: TypeAlias = Sink | None


@attrs.frozen
class Deadlines:
    """Upper bounds for what a runtime does, in seconds."""

    prepare: float = 600.0
    start: float = 300.0
    transfer: float = 3600.0
    teardown: float = 60.0
    capacity: float = 600.0
    """How long a run waits for others to make room."""


@attrs.define(eq=False)
class Session:
    """One instance, from its durable intent to its verified end; use it with `async with`.

    Leaving the block tears the instance down, whatever happened in it and however often the task
    is cancelled; a teardown that cannot be verified raises `TeardownFailed`, together with the
    error of the block if there is one.
    """

    relay: Relay
    route: Route
    spec: Spec
    _ledger: Ledger
    _intent: Intent
    _secrets: Mapping[str, str] = attrs.field(repr=False)
    _listener: events.Listener
    deadlines: Deadlines = Deadlines()
    record: Record = attrs.field(init=False)
    _instance: Instance | None = attrs.field(init=False, default=None)
    _lease: Lease | None = attrs.field(init=False, default=None)
    _ticket: Ticket | None = attrs.field(init=False, default=None)
    _created: bool = attrs.field(init=False, default=False)
    _spent: bool = attrs.field(init=False, default=False)
    _endpoint: Endpoint | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.record = Record(self._intent.name, self.spec.group, self.route, time.time())

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self._intent.name

    @property
    def open(self) -> bool:
        """Whether it takes commands; not before it was entered, nor after it was left."""
        return self._created and self.record.teardown == "pending"

    async def __aenter__(self) -> Self:
        try:
            claimed = await self._claim()
            # First the durable intent, only then the first side effect: no intent, no instance.
            await in_thread(self._acquire)
            assert self._lease is not None
            host = Host(self._lease, self.relay.name, self._secrets, self._listener, claimed)
            self._instance = Instance(self.name, self.spec, host)
            await self._timed("prepare", self.relay.prepare(self._instance), self.deadlines.prepare)
            await self._timed("start", self.relay.start(self._instance), self.deadlines.start)
            self._created = True
            self._listen(self._lease)
            self._lease.mark("running")
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end(error)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | AsyncIterator[bytes] | None = None,
        stdout: Output = None,
        stderr: Output = None,
        control: AsyncIterator[Control] | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        terminal: Resize | None = None,
        recorded: bool = True,
    ) -> Exit:
        """Run a command to its end and return how it ended; its own failure is no exception.

        Args:
            argv: program and arguments.
            stdin: what the command reads; None is an empty input.
            stdout: awaited for every chunk; None drops it.
            stderr: the same for standard error.
            control: signals for the command, and new sizes of its terminal, while it runs.
            env: environment on top of the session's.
            workdir: directory to start in.
            timeout: seconds until it is stopped; None is what is configured.
            idle_timeout: seconds without output until it is stopped; None is what is configured.
            terminal: size of the terminal to give it; everything that it writes there comes as
                standard output. None gives it pipes.
            recorded: whether the record of the session shall tell of it.

        Raises:
            Unsupported: the runtime has no terminals; nothing was run.
            DeadlineExceeded: one of the two deadlines passed; the command was stopped.
            SpentInstance: the command could not be stopped; only leaving the session is possible.
            RuntimeFault: the runtime failed; whether the command ran to its end is unknown.
        """
        instance = self._usable()
        if not argv:
            raise ConfigError("no command given", remedy="name the program to run")
        for text in (*argv, *(env or {}), *(env or {}).values()):
            if "\0" in text:
                raise ConfigError(
                    "a NUL byte in an argument or in the environment",
                    remedy="pass binary data by standard input or by upload",
                )
        if terminal is not None and not self.route.assessment.terminal:
            raise Unsupported(
                f"{self.relay.name} cannot give a command a terminal",
                phase="execute",
                instance=self.name,
                remedy="run it without a terminal, or choose a runtime that has them",
            )
        started = time.monotonic()
        configured = self.route.merged.settings
        deadline = CommandDeadline(
            configured.timeout if timeout is None else timeout,
            configured.idle_timeout if idle_timeout is None else idle_timeout,
        )
        broken: list[Exception] = []
        io = IO(
            None if stdin is None else _chunks(stdin, broken),
            _watched(stdout, deadline, broken),
            _watched(stderr, deadline, broken),
            control,
        )
        try:
            async with deadline.watch():
                ended = await self.relay.execute(
                    instance, Command(tuple(argv), dict(env or {}), workdir, terminal), io
                )
                if ended.reason:
                    ended = attrs.evolve(ended, reason=instance.host.redact(ended.reason))
                if recorded:
                    self.record.exit = ended
                return ended
        except DeadlineExceeded as error:
            error.at(runtime=self.relay.name, instance=self.name)
            raise
        except SpentInstance:
            self._spent = True
            raise
        except ClawError:
            if broken:
                raise broken[0] from None  # the caller's own stream failed, not the runtime
            raise
        finally:
            if recorded:
                self._spend("execute", started)

    async def upload(self, source: Path, target: str) -> None:
        """Copy a file or directory of the host to exactly the path `target` inside the instance.

        Raises:
            ArchiveError: something in it cannot be read. Sockets, fifos and devices are left out,
                with a `Notice`.
            ConfigError: `source` does not exist.
        """
        instance = self._usable()
        parent, name = _split(target)
        from claw_core import archive  # most sessions move no files

        chunks = archive.pack(Path(source), name, lambda text: self._listener(events.Notice(text)))
        await self._timed(
            "upload", self.relay.upload(instance, chunks, parent), self.deadlines.transfer
        )

    async def download(
        self, source: str, target: Path, *, limit: int | None = None, lenient: bool = False
    ) -> Path:
        """Copy a path of the instance to the host, whole or not at all, and return where it is.

        Args:
            source: file or directory of the instance.
            target: where it comes to lie; in a directory that exists, below it under its own name.
                A file in its place is replaced, a directory there is an error.
            limit: bytes of content that are accepted; None is `unpack.LIMIT`.
            lenient: leave out links that lead out of it, fifos and devices, and say so as
                `Progress`; otherwise one of them refuses all.

        Raises:
            ArchiveError: the instance sent something unsafe, or `source` does not exist.
            ConfigError: it cannot be put there; nothing was asked of the instance.
        """
        instance = self._usable()
        _, name = _split(source)
        from claw_core import archive, unpack  # see `upload`

        final = archive.destination(Path(target), name)

        def left_out(what: str) -> None:
            self._listener(events.Progress(self.relay.name, self.name, f"left out: {what}"))

        async with unpack.unpacking(
            final, name, limit=limit or unpack.LIMIT, left_out=left_out if lenient else None
        ) as sink:
            await self._timed(
                "download", self.relay.download(instance, source, sink), self.deadlines.transfer
            )
        return final

    async def snapshot(self, target: Audit | Image) -> str:
        """Keep the disk under a name and return it.

        Raises:
            Unsupported: the runtime keeps no snapshots.
        """
        return await self._timed(
            "snapshot", self.relay.snapshot(self._usable(), target), self.deadlines.transfer
        )

    async def _claim(self) -> tuple[int, ...]:
        """Wait for room for what the runtime takes of scarce things; usually that is nothing."""
        if not self.route.assessment.slots:
            return ()
        from claw_core.slots import Slots  # few runs need one

        self._ticket = await Slots(self._ledger.state).take(
            self.route.assessment.slots,
            timeout=self.deadlines.capacity,
            waiting=lambda text: self._listener(events.Notice(text)),
        )
        return (self._ticket.descriptor,)

    def _acquire(self) -> None:
        self._lease = self._ledger.acquire(self._intent)

    def _listen(self, lease: Lease) -> None:
        """Take the commands of `claw exec`; a run that cannot goes on without."""
        try:
            self._endpoint = Endpoint.open(lease.socket, self)
        except OSError as error:
            text = f"`claw exec` cannot reach {self.name}: {error.strerror or error}"
            self._listener(events.Notice(text))

    def _usable(self) -> Instance:
        if self._instance is None or self.record.teardown != "pending":
            raise ConfigError(f"the session of {self.name} is not open", remedy="use `async with`")
        if self._spent:
            raise SpentInstance(
                "a command could not be stopped, so this instance takes no more work",
                runtime=self.relay.name,
                instance=self.name,
                remedy="leave the session and open a new one",
            )
        return self._instance

    async def _timed(self, phase: str, work: Awaitable[T], limit: float) -> T:
        """Await one phase under its deadline, and remember how long it took."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(
                f"{phase} did not end within {limit:g} s",
                runtime=self.relay.name,
                phase=phase,
                instance=self.name,
            ) from None
        finally:
            self._spend(phase, started)

    def _spend(self, phase: str, started: float) -> None:
        spent = self.record.seconds.get(phase, 0.0) + time.monotonic() - started
        self.record.seconds[phase] = spent

    async def _end(self, error: BaseException | None) -> None:
        """Tear down in a task of its own, and let neither failure hide the other."""
        try:
            await self._finish(error)
        finally:
            if self._ticket is not None:
                self._ticket.close()

    async def _finish(self, error: BaseException | None) -> None:
        if self._lease is None:
            return  # no intent, so no side effect either
        try:
            await persist(self._teardown(self._lease))
        except TeardownFailed as failure:
            if error is None:
                raise
            message = "the run failed, and its instance could not be torn down"
            raise BaseExceptionGroup(message, [error, failure]) from None
        finally:
            if error is not None:
                phase = getattr(error, "phase", None)
                self.record.error = type(error).__name__ + (f" in {phase}" if phase else "")
            await persist(self._remember())

    async def _teardown(self, lease: Lease) -> None:
        started = time.monotonic()
        if self._instance is None:
            await in_thread(lease.release)
            self.record.teardown = "gone"
            return
        lease.mark("stopping")
        if self._endpoint is not None:
            await self._endpoint.close()
        outcome = await destroy(
            self.relay,
            self._instance,
            lease,
            deadline=self.deadlines.teardown,
            # Only a creation that was cut short can still come to light in a server later, and to
            # wait for that is the warden's work.
            settle=0.0 if self._created else self.route.assessment.settle,
        )
        self._spend("teardown", started)
        self.record.teardown = outcome.result
        if outcome.result not in {"gone", "limbo"}:
            raise TeardownFailed(
                outcome.error or "the teardown could not be verified",
                runtime=self.relay.name,
                phase="teardown",
                instance=self.name,
                cleaned="nothing is sure; the instance stays listed in `claw ps` and is retried",
                remedy="see `claw ps`; `claw reap` tries again",
            )

    async def _remember(self) -> None:
        try:
            await in_thread(append, self._ledger.state, self.record)
        except OSError as error:
            # The run is over and torn down: a full disk must not turn it into a failure.
            self._listener(events.Notice(f"runs.jsonl could not be written: {error.strerror}"))


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    if not name or name in {".", ".."} or ".." in parent.split("/") or "\0" in path:
        raise ConfigError(
            f"{path!r} is no path inside the instance",
            remedy="give the path of a file or directory, without `..`",
        )
    return parent or ("/" if path.startswith("/") else "."), name


async def _chunks(
    data: bytes | AsyncIterator[bytes], broken: list[Exception]
) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    try:
        async for chunk in data:
            yield chunk
    except Exception as error:
        broken.append(error)
        raise


def _watched(sink: Output, deadline: CommandDeadline, broken: list[Exception]) -> Sink:
    async def watched(data: bytes) -> None:
        with deadline.reading():
            if sink is None:
                return
            try:
                await sink(data)
            except Exception as error:
                broken.append(error)
                raise

    return watched
