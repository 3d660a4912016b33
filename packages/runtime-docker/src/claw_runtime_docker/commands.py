"""Runs one command in a running container: its streams, its end, and its end by force."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs

from claw_core.errors import RuntimeFault, SpentInstance
from claw_core.guest import KILLER
from claw_core.model import IO, Command, Control, Exit, Resize, Signal, Spec
from claw_core.streaming import typed
from claw_core.tasks import persist, stop
from claw_runtime_docker import frames
from claw_runtime_docker.connection import Connection
from claw_runtime_docker.container import HOME, directory
from claw_runtime_docker.errors import NOT_FOUND, EngineError
from claw_runtime_docker.patience import answered
from claw_runtime_docker.place import Place
from claw_runtime_docker.scripts import COMMAND

MARKER: Final = "CLAW_COMMAND"
"""Variable in the environment of every command: by it its descendants are found."""
LAST_TIMEOUT: Final = 5.0
"""Seconds that the engine then has to kill its container."""

_KILLED: Final = 137
_LONGEST_LINE: Final = 4096


@attrs.define(eq=False)
class Running:
    """A command in a container; make one, and `run` it once."""

    place: Place
    command: Command
    token: str = attrs.field(factory=lambda: secrets.token_hex(8))
    _id: str | None = attrs.field(init=False, default=None)
    _stream: Connection | None = attrs.field(init=False, default=None)
    _over: bool = attrs.field(init=False, default=False)
    _pid: asyncio.Future[str] = attrs.field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def run(self, spec: Spec, io: IO) -> Exit:
        """Run to the end; when cancelled, nothing of it runs any more on return.

        Raises:
            SpentInstance: it could not be ended, so the container was killed.
            RuntimeFault: the engine failed, or the container has ended.
        """
        async with self.place.killing:
            self.place.running.add(self.token)
        try:
            try:
                piped = io.stdin is not None or self.command.terminal is not None
                await answered(self._start(spec, piped=piped))
                assert self._stream is not None
                problem = await self._attend(self._stream, io)
                return await self._outcome(spec, problem)
            except BaseException:
                await persist(self._end())
                raise
        finally:
            if self._stream is not None:
                self._stream.close()
            self.place.running.discard(self.token)
            aclose = getattr(io.stdin, "aclose", None)
            if aclose is not None:
                await aclose()

    async def _start(self, spec: Spec, *, piped: bool) -> None:
        """Ask for the start, and keep the stream; never cut short, or it would start unseen."""
        size = self.command.terminal
        where = self.command.workdir or directory(spec)
        env = {"HOME": HOME, **spec.env, **self.command.env, MARKER: self.token}
        shape = ("", "") if size is None else (str(size.rows), str(size.columns))
        body = {
            "Cmd": ["sh", "-c", COMMAND, "sh", self.token, where, *shape, *self.command.argv],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "AttachStdin": piped,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": size is not None,
        }
        engine = self.place.engine
        made = await engine.call("POST", f"/containers/{self.place.container}/exec", None, body)
        self._id = made["Id"]
        start = {"Detach": False, "Tty": size is not None}
        self._stream = await engine.hijack(f"/exec/{self._id}/start", None, start)

    async def _attend(self, connection: Connection, io: IO) -> str | None:
        """Move the streams until the output ends; return why the command was not started."""
        output = asyncio.create_task(self._pump(connection, io))
        others = []
        if self.command.terminal is not None:
            # A terminal has no end that could be closed.
            others.append(asyncio.create_task(_feed(connection, typed(io.stdin))))
        elif io.stdin is not None:
            others.append(asyncio.create_task(_feed(connection, io.stdin, ends=True)))
        if self.command.terminal is not None or io.control is not None:
            others.append(asyncio.create_task(self._control(io.control)))
        tasks: list[asyncio.Task[Any]] = [output, *others]
        try:
            pending = set(tasks)
            while not output.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a stream of the caller that fails is the caller's failure
            return output.result()
        finally:
            await persist(stop(tasks))

    async def _pump(self, connection: Connection, io: IO) -> str | None:
        first: bytearray | None = bytearray()
        problem = None
        terminal = self.command.terminal is not None
        split = _unsplit if terminal else frames.split
        async for channel, data in split(connection.read):
            if first is not None and (terminal or channel == 2):
                first += data
                line, newline, rest = bytes(first).partition(b"\n")
                if not newline and len(first) < _LONGEST_LINE:
                    continue
                token, _, said = line.decode(errors="replace").strip().partition(" ")
                if token != self.token:
                    rest = bytes(first)  # not ours: the shell itself failed
                elif said.isdigit():
                    self._pid.set_result(said)
                else:
                    problem = said
                first = None
                if not rest:
                    continue
                data = rest
            await (io.stderr if channel == 2 else io.stdout)(data)
        if first:
            await io.stderr(bytes(first))
        return problem

    async def _control(self, control: AsyncIterator[Control] | None) -> None:
        """Pass resizes and signals on, once the command is there."""
        pid = await self._pid
        if self.command.terminal is not None:
            # Where the image has no `stty` the size comes only now, and before any other.
            await self._resize(self.command.terminal)
        if control is None:
            return
        async for message in control:
            if isinstance(message, Resize):
                await self._resize(message)
            elif isinstance(message, Signal):
                await self.place.inside(f"kill -{message.number} -{pid}")

    async def _resize(self, size: Resize) -> None:
        await self._pid
        with contextlib.suppress(EngineError):  # it has just ended
            query = {"h": size.rows, "w": size.columns}
            await self.place.engine.call("POST", f"/exec/{self._id}/resize", query)

    async def _outcome(self, spec: Spec, problem: str | None) -> Exit:
        """What the engine says about the end: the end of a stream alone is no success."""
        program = self.command.argv[0]
        try:
            found = await self.place.ended(self._id)
        except EngineError as error:
            raise self._vanished() from error
        self._over = True
        code = found["ExitCode"]
        if problem == "workdir":
            where = self.command.workdir or directory(spec)
            raise RuntimeFault(
                f"cannot start in {where!r}: it is not there, or the commands' user may not enter",
                remedy="name another directory with -w, or see the setting user",
            )
        if problem == "missing":
            return Exit(127, reason=f"{program}: command not found in the instance")
        if problem == "denied":
            return Exit(126, reason=f"{program}: cannot be executed")
        if code == _KILLED and not await self.place.alive():
            raise self._vanished()
        if not self._pid.done():
            raise RuntimeFault(
                f"the engine could not start {program} (code {code})",
                remedy="see what it wrote; the image needs a working `sh`",
            )
        return Exit(int(code) & 0xFF)

    def _vanished(self) -> RuntimeFault:
        return RuntimeFault(
            "the container ended while the command ran",
            remedy="see the engine's log; a container that needs more memory than it has is killed",
        )

    async def _end(self) -> None:
        """End the command by force, verifiably; or else the whole container.

        Raises:
            SpentInstance: it was the container.
        """
        if self._id is None or self._over:
            return
        try:
            async with asyncio.timeout(self.place.patience), self.place.killing:
                await self._kill()
        except (TimeoutError, RuntimeFault) as error:
            if isinstance(error, EngineError) and error.status == NOT_FOUND:
                return  # it has ended with its container
            if not await self._gone():
                raise SpentInstance(
                    f"the command could not be ended ({str(error) or 'it took too long'})",
                    remedy="leave the session: its teardown removes the container",
                ) from error

    async def _kill(self) -> None:
        """Kill what is seen, until the engine says that the command itself has ended."""
        pause = 0.002
        while True:
            found = await self.place.engine.call("GET", f"/exec/{self._id}/json")
            begun = found["Running"] and found.get("Pid")
            if begun or found["ExitCode"] is not None:
                pid = self._pid.result() if self._pid.done() else ""
                alone = "1" if self.place.running == {self.token} else ""
                mark = f"{MARKER}={self.token}"
                code = await self.place.inside(KILLER, self.place.keeper, mark, pid, alone)
                found = await self.place.engine.call("GET", f"/exec/{self._id}/json")
                if code == 0 and not found["Running"]:
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    async def _gone(self) -> bool:
        """Kill the container, and return whether it was not there any more anyway."""
        path = f"/containers/{self.place.container}/kill"
        try:
            await self.place.engine.call("POST", path, timeout=LAST_TIMEOUT)
        except EngineError as error:
            return error.status == NOT_FOUND
        except RuntimeFault:
            return False  # the engine is not there, or hangs: nothing is known
        return False


async def _unsplit(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[tuple[int, bytes]]:
    """The output of a terminal, which has no frames."""
    while data := await read():
        yield 1, data


async def _feed(
    connection: Connection, chunks: AsyncIterator[bytes], *, ends: bool = False
) -> None:
    """Write everything, and say that it was all if it `ends`; a reader that is gone ends it."""
    async for chunk in chunks:
        try:
            await connection.write(chunk)
        except OSError:
            return
    if ends:
        connection.half_close()
