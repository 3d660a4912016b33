"""Runs one command in a running container: its streams, its end, and its end by force.

It hangs on a call of `container exec` that cannot be relied on: signals to it do not arrive, its
exit code 1 may be its own, and its end may come before that of the output. So the command says
itself when it starts and how it ends, is signalled and killed from inside, and its output is taken
at any time: see `scripts`, `guest` and `spool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final

import attrs

from claw_core.descriptors import close
from claw_core.errors import ConfigError, RuntimeFault
from claw_core.model import IO, Command, Control, Exit, Signal, Sink, Spec
from claw_core.streaming import Streamed
from claw_core.tasks import persist, stop
from claw_runtime_apple import container
from claw_runtime_apple.ending import MARKER, Call, begun, end, kill
from claw_runtime_apple.errors import ContainerSilent, failure
from claw_runtime_apple.feed import WINDOW, Feed
from claw_runtime_apple.place import Place
from claw_runtime_apple.scripts import COMMAND, ENVIRONMENT, assignments
from claw_runtime_apple.spool import Spool
from claw_runtime_apple.told import ERR, OUT, Told

START_TIMEOUT: Final = 60.0
"""Seconds that a command has to say that it starts."""
LINGER: Final = 10.0
"""Seconds that a call has to end after its command has: those left behind take three."""

_KILLED: Final = 137
_LARGEST: Final = 128 << 10


@attrs.define(eq=False)
class Running:
    """A command in a container; make one, and `run` it once.

    Attributes:
        place: where it runs.
        command: what.
        window: bytes of its input that are under way at most.
        token: tells what is said about it from what it says.
    """

    place: Place
    command: Command
    window: int = WINDOW
    token: str = attrs.field(factory=lambda: secrets.token_hex(16))
    _spool: Spool = attrs.field(init=False, factory=Spool)
    _told: Told = attrs.field(init=False)
    _feed: Feed | None = attrs.field(init=False, default=None)
    _sent: int = attrs.field(init=False, default=0)
    _broken: asyncio.Future[None] = attrs.field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )

    def __attrs_post_init__(self) -> None:
        self._told = Told(self.token, lambda: self._feed.taken() if self._feed else None)

    @property
    def fed(self) -> bool:
        """Whether the command took all of its input."""
        return self._feed is None or self._feed.whole

    async def run(self, spec: Spec, io: IO) -> Exit:
        """Run to the end; when cancelled, nothing of it runs any more on return.

        Raises:
            SpentInstance: it could not be ended, or nobody can tell whether it has.
            RuntimeFault: it could not be started, or a part of its output is lost.
        """
        env = self._environment(spec)
        async with self.place.killing:
            self.place.running.add(self.token)
        call = asyncio.create_task(self._call(spec, io, env))
        try:
            try:
                await self._attend(call, io)
                return await self._outcome(spec, call)
            except BaseException as error:
                self._spool.drop()
                await persist(end(self.place, self._told, call, error))
                raise
        finally:
            await persist(stop([call]))
            await self._spool.close()
            self.place.running.discard(self.token)
            if not self._broken.cancel():
                self._broken.exception()  # seen
            await close(io.stdin)

    def _environment(self, spec: Spec) -> dict[str, str]:
        """The environment of the call, with the command's in one variable.

        Raises:
            ConfigError: it is too large, or a secret is not available.
        """
        values = {name: self.place.host.secret(name) for name in spec.secrets}
        variables = container.environment(spec, values, self.command.env)
        text = assignments({**variables, MARKER: self.token})
        if len(os.fsencode(text)) > _LARGEST:
            raise ConfigError(
                "the environment is larger than a guest's kernel allows",
                remedy="pass large data by standard input or by upload",
            )
        return {**os.environ, ENVIRONMENT: text}

    async def _call(self, spec: Spec, io: IO, env: Mapping[str, str]) -> Streamed | None:
        """Hold the call that the command hangs on; None where it did not end with the command."""
        where = self.command.workdir or container.start_directory(spec)
        stdin = None
        if io.stdin is not None:
            self._feed = Feed(self._input(io.stdin), self.window)
            stdin = self._feed.pieces()
        piped = stdin is not None
        argv = [self.place.cli.program, "exec", *(["-i"] if piped else [])]
        argv += ["--user", self.place.user, "-e", ENVIRONMENT, self.place.container]
        argv += ["sh", "-c", COMMAND, "sh", self.token, where, "1" if piped else ""]
        argv += self.command.argv
        streams = IO(stdin, self._sink(OUT), self._sink(ERR))
        try:
            return await self.place.host.stream(argv, streams, env=env)
        except asyncio.CancelledError:
            if not self._told.ended.is_set():
                raise
            return None
        finally:
            self._spool.finish()

    async def _input(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What the command reads; should it fail, the command must not take that for its end."""
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:  # noqa: BLE001 - the caller's own failure, raised in `_attend`
            self._broken.set_exception(error)
            await asyncio.Event().wait()

    def _sink(self, channel: int) -> Sink:
        async def sink(data: bytes) -> None:
            for piece in self._told.own(channel, data):
                await self._spool.put(channel, piece)
            if self._told.ended.is_set() and self._feed is not None:
                self._feed.cut()

        return sink

    async def _attend(self, call: Call, io: IO) -> None:
        """Return when the call has ended and its output is delivered."""
        deliver = asyncio.create_task(self._deliver(io))
        works: list[Coroutine[Any, Any, None]] = [self._watch(call), self._pace()]
        if io.control is not None:
            works.append(self._control(io.control))
        others = [asyncio.create_task(work) for work in works]
        try:
            pending: set[asyncio.Future[Any]] = {call, deliver, *others, self._broken}
            while not deliver.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a stream of the caller that fails is the caller's failure
        finally:
            await persist(stop([deliver, *others]))

    async def _deliver(self, io: IO) -> None:
        async for channel, data in self._spool.pieces():
            await (io.stderr if channel == ERR else io.stdout)(data)

    async def _watch(self, call: Call) -> None:
        """See that the command starts, and that the call ends soon after it.

        Raises:
            ContainerSilent: it does not start.
        """
        if not await begun(self._told, call, START_TIMEOUT):
            raise ContainerSilent(
                f"the command did not start within {START_TIMEOUT:g} s",
                remedy="leave the session: its guest may hang, or another one's",
            )
        await self._told.ended.wait()
        await asyncio.wait({call}, timeout=LINGER)
        call.cancel()

    async def _pace(self) -> None:
        """Pause the command while its reader has much to read."""
        group = await asyncio.shield(self._told.started)
        while True:
            await self._spool.full.wait()
            with contextlib.suppress(RuntimeFault):  # then the spool gets larger, up to its limit
                await self.place.inside(f"kill -STOP -{group}")
            await self._spool.roomy.wait()
            await self.place.inside(f"kill -CONT -{group}")

    async def _control(self, control: AsyncIterator[Control]) -> None:
        """Pass signals on, once the command is there."""
        group = await asyncio.shield(self._told.started)
        async for message in control:
            if isinstance(message, Signal):
                self._sent = message.number
                await self.place.inside(f"kill -{message.number} -{group}")

    async def _outcome(self, spec: Spec, call: Call) -> Exit:
        """What was told about the end: the code of the call alone proves nothing.

        Raises:
            RuntimeFault: it was not told, or not all of the output has come.
        """
        told, done, program = self._told, call.result(), self.command.argv[0]
        if told.problem == "workdir":
            where = self.command.workdir or container.start_directory(spec)
            raise RuntimeFault(
                f"cannot start in {where!r}: it is not there, or the commands' user may not enter",
                remedy="name another directory with -w, or see the setting user",
            )
        if told.problem == "missing":
            return Exit(127, reason=f"{program}: command not found in the instance")
        if told.problem == "denied":
            return Exit(126, reason=f"{program}: cannot be executed")
        if told.code is not None and told.whole:
            return Exit(told.code)
        if done is None or told.code is not None:
            raise RuntimeFault(
                f"a part of the command's output was lost; it ended with code {told.code}",
                remedy="run it again",
            )
        if told.group and done.code in {_KILLED, 128 + self._sent}:
            # A signal has ended who would have told, if the container is there to say so.
            with contextlib.suppress(RuntimeFault):
                await kill(self.place, self._told)
                return Exit(done.code, signal=done.code - 128)
        error = failure(done.code, done.errors, "exec")
        if told.group:
            raise RuntimeFault(
                f"the container ended while the command ran: {error.message}",
                remedy="a virtual machine that needs more memory than it has ends; give it more",
            )
        raise error
