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
from claw_core.errors import ClawError, ConfigError, RuntimeFault, SpentInstance
from claw_core.guest import KILLER
from claw_core.model import IO, Command, Control, Exit, Signal, Sink, Spec
from claw_core.streaming import Streamed
from claw_core.tasks import persist, stop
from claw_runtime_apple import container
from claw_runtime_apple.errors import ContainerSilent, failure
from claw_runtime_apple.feed import WINDOW, Feed
from claw_runtime_apple.markers import Scanner, Word
from claw_runtime_apple.place import Place
from claw_runtime_apple.scripts import COMMAND, ENVIRONMENT, TAKEN, assignments
from claw_runtime_apple.spool import Spool

MARKER: Final = "CLAW_COMMAND"
"""Variable in the environment of every command: by it its descendants are found."""
START_TIMEOUT: Final = 60.0
"""Seconds that a command has to say that it starts."""
LINGER: Final = 10.0
"""Seconds that a call has to end after its command has: those left behind take three."""

_OUT: Final = 1
_ERR: Final = 2
_KILLED: Final = 137
_LARGEST: Final = 128 << 10
_PROBLEMS: Final = frozenset({"workdir", "missing", "denied"})


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
    _said: dict[int, list[str]] = attrs.field(init=False, factory=lambda: {_OUT: [], _ERR: []})
    _sent: int = attrs.field(init=False, default=0)
    _over: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _started: asyncio.Future[str] = attrs.field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )
    _broken: asyncio.Future[None] = attrs.field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )
    _feed: Feed | None = attrs.field(init=False, default=None)

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
                await persist(self._end(call, error))
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
        streams = IO(stdin, self._sink(_OUT), self._sink(_ERR))
        try:
            return await self.place.host.stream(argv, streams, env=env)
        except asyncio.CancelledError:
            if not self._over.is_set():
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
        scanner = Scanner(self.token)

        async def sink(data: bytes) -> None:
            for piece in scanner.feed(data):
                if isinstance(piece, Word):
                    self._note(channel, piece.text)
                # Errors before the first and after the last word are the tool's own.
                elif len(self._said[channel]) == (channel == _ERR):
                    await self._spool.put(channel, piece)

        return sink

    def _note(self, channel: int, word: str) -> None:
        if word == TAKEN:
            if self._feed is not None:
                self._feed.taken()
            return
        self._said[channel].append(word)
        if not self._started.done() and channel == _ERR:
            self._started.set_result(word)
        whole = len(self._said[_ERR]) > 1 and bool(self._said[_OUT])
        if whole or word in _PROBLEMS:
            self._over.set()
            if self._feed is not None:
                self._feed.cut()

    async def _attend(self, call: asyncio.Task[Streamed | None], io: IO) -> None:
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
            await (io.stderr if channel == _ERR else io.stdout)(data)

    async def _watch(self, call: asyncio.Task[Streamed | None]) -> None:
        """See that the command starts, and that the call ends soon after it.

        Raises:
            ContainerSilent: it does not start.
        """
        if not await self._begun(call, START_TIMEOUT):
            raise ContainerSilent(
                f"the command did not start within {START_TIMEOUT:g} s",
                remedy="leave the session: its guest may hang, or another one's",
            )
        await self._over.wait()
        await asyncio.wait({call}, timeout=LINGER)
        call.cancel()

    async def _begun(
        self, call: asyncio.Task[Streamed | None], timeout: float | None = None
    ) -> bool:
        """Wait until the command says that it starts, or its call ends; return if in time."""
        either: set[asyncio.Future[Any]] = {call, self._started}
        done, _ = await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def _pace(self) -> None:
        """Pause the command while its reader has much to read."""
        pid = await asyncio.shield(self._started)
        while True:
            await self._spool.full.wait()
            with contextlib.suppress(RuntimeFault):  # then the spool gets larger, up to its limit
                await self.place.inside(f"kill -STOP -{pid}")
            await self._spool.roomy.wait()
            await self.place.inside(f"kill -CONT -{pid}")

    async def _control(self, control: AsyncIterator[Control]) -> None:
        """Pass signals on, once the command is there."""
        pid = await asyncio.shield(self._started)
        async for message in control:
            if isinstance(message, Signal):
                self._sent = message.number
                await self.place.inside(f"kill -{message.number} -{pid}")

    async def _outcome(self, spec: Spec, call: asyncio.Task[Streamed | None]) -> Exit:
        """What the command said about its end: the code of the call alone proves nothing."""
        done, words, program = call.result(), self._said[_ERR], self.command.argv[0]
        if self._over.is_set():
            if words[0] == "workdir":
                where = self.command.workdir or container.start_directory(spec)
                raise RuntimeFault(
                    f"cannot start in {where!r}: it is not there, or the commands' user may not "
                    "enter",
                    remedy="name another directory with -w, or see the setting user",
                )
            if words[0] == "missing":
                return Exit(127, reason=f"{program}: command not found in the instance")
            if words[0] == "denied":
                return Exit(126, reason=f"{program}: cannot be executed")
            return Exit(int(words[1]) & 0xFF)
        assert done is not None
        lost = self._lost(done)
        if len(words) == 1 and done.code in {_KILLED, 128 + self._sent}:
            # A signal has ended who would have told, if the container is there to say so.
            with contextlib.suppress(RuntimeFault):
                await self._kill(call)
                return Exit(done.code, signal=done.code - 128)
        raise lost

    def _lost(self, done: Streamed) -> RuntimeFault:
        """Why nobody can tell how the command ended."""
        words = self._said[_ERR]
        if len(words) > 1:
            return RuntimeFault(
                f"a part of the command's output was lost; it ended with code {words[1]}",
                remedy="run it again",
            )
        error = failure(done.code, done.errors, "exec")
        if words:
            return RuntimeFault(
                f"the container ended while the command ran: {error.message}",
                remedy="a virtual machine that needs more memory than it has ends; give it more",
            )
        return error

    async def _end(self, call: asyncio.Task[Streamed | None], cause: BaseException) -> None:
        """End the command by force, verifiably.

        Raises:
            SpentInstance: that is not possible.
        """
        if self._over.is_set() or self._never(call):
            return
        try:
            async with asyncio.timeout(self.place.patience):
                # A call that is under way may start the command at any moment.
                await self._begun(call)
                async with self.place.killing:
                    await self._kill(call)
                await asyncio.wait({call})
        except (TimeoutError, RuntimeFault) as error:
            said = error.message if isinstance(error, RuntimeFault) else "it took too long"
            before = f"{cause.message}; " if isinstance(cause, ClawError) else ""
            raise SpentInstance(
                f"{before}the command could not be ended ({said})",
                remedy="leave the session: its teardown removes the virtual machine",
            ) from cause

    def _never(self, call: asyncio.Task[Streamed | None]) -> bool:
        """Whether the call could not even be made."""
        if self._started.done() or not call.done() or call.cancelled():
            return False
        return isinstance(call.exception(), RuntimeFault)

    async def _kill(self, call: asyncio.Task[Streamed | None]) -> None:
        """Kill the command with its descendants, and see that none is left.

        Raises:
            RuntimeFault: one is, or may still come.
        """
        place = self.place
        if not self._started.done() and (call.cancelled() or call.exception()):
            raise RuntimeFault("whether it has started is unknown")
        pid = self._started.result() if self._started.done() else ""
        # Where the keeper is the first process, all that is seen is the container's own.
        alone = "1" if place.keeper == "1" and place.running == {self.token} else ""
        mark = f"{MARKER}={self.token}"
        if not await place.inside(KILLER, place.keeper, mark, pid, alone):
            raise RuntimeFault("its processes do not end")
