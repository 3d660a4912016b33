"""Commands in a guest through Tart's guest agent: no network, no SSH, and less is known of them.

The agent gives an exit code of the guest's command or of its own, so the program says how it ended
at the end of its standard error, after a token that nobody else knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

import attrs

from claw_core.errors import RuntimeFault, SpentInstance, Unsupported
from claw_core.host import Host
from claw_core.model import IO, Exit, Resize, Sink
from claw_core.streaming import Streamed
from claw_core.tasks import persist, stop
from claw_runtime_tart import cli, guest
from claw_runtime_tart.cli import GuestLost, Tart
from claw_runtime_tart.reached import DRAIN, LEFT

_WRAPPED: Final = """
(
{program}
){input}
code=$?
printf '\\n%s %s\\n' {token}-end "$code" >&2
exit 0
"""


@attrs.frozen(eq=False)
class Agent:
    """The guest's agent, which `tart exec` reaches.

    Args:
        tart: the command.
        host: of the instance.
        name: of the machine.
    """

    tart: Tart
    host: Host
    name: str

    async def run(self, program: str, token: str, io: IO, terminal: Resize | None) -> Exit:
        """Run a program of `guest`, and return how it ended.

        Args:
            program: for the guest's `sh`.
            token: ends what the program says of its end; nobody else knows it.
            io: the streams; signals are not passed on.
            terminal: must be None.

        Raises:
            GuestLost: the agent cannot be reached, or was lost; how the command ends is unknown.
            SpentInstance: this call was cut short; what the command has started may go on.
            Unsupported: a terminal is asked for.
        """
        if terminal is not None:
            raise Unsupported("Tart's guest agent gives no terminal", remedy="use transport ssh")
        nothing = " </dev/null" if io.stdin is None else ""
        line = guest.line(_WRAPPED.format(program=program, token=token, input=nothing))
        stdin = _held(line) if io.stdin is None else guest.preceded(line, io)
        flow, closing = Flow(), Closing(token, io.stderr)
        argv = (self.tart.executable, "exec", "-i", self.name, "/bin/sh", "-c", guest.READER)
        wrapped = IO(stdin, flow.through(io.stdout), flow.through(closing))
        try:
            done = await self._ended(argv, wrapped, flow, closing.over)
        except RuntimeFault:
            raise
        except BaseException as error:
            raise SpentInstance(
                "the command was cut short, and what it has started may go on in the guest",
                remedy="leave the session: its teardown destroys the machine",
            ) from error
        await closing.end()
        if closing.code is None or (done is not None and done.code):
            said = done.errors.decode(errors="replace").strip() if done else ""
            raise GuestLost(
                f"the guest agent was lost or cannot be reached: {said or 'it said nothing'}",
                remedy=cli.remedy_for(said)
                or "the image needs Tart's guest agent; see whether the guest has crashed",
            )
        return Exit(closing.code)

    async def close(self) -> None:
        """Every call is its own connection."""

    async def _ended(
        self, argv: Sequence[str], io: IO, flow: Flow, over: asyncio.Event
    ) -> Streamed | None:
        """Move the streams to their end; None where descendants keep them open after the end."""
        env = self.tart.environment()
        stream = asyncio.create_task(self.host.stream(argv, io, env=env))
        ending = asyncio.create_task(over.wait())
        try:
            await asyncio.wait({stream, ending}, return_when=asyncio.FIRST_COMPLETED)
            last, until = flow.moved + LEFT, flow.idle() + DRAIN
            while not stream.done() and flow.moved < last and (rest := until - flow.idle()) > 0:
                await asyncio.wait({stream}, timeout=rest)
            return stream.result() if stream.done() else None
        finally:
            await persist(stop([stream, ending]))


async def _held(line: bytes) -> AsyncIterator[bytes]:
    """A standard input without an end: up to 2.32, `tart exec` takes a processor after its end.

    That is https://github.com/openai/tart/issues/1281.
    """
    yield line
    await asyncio.Event().wait()


@attrs.define(eq=False)
class Flow:
    """What moves through some sinks.

    Attributes:
        moved: bytes so far.
    """

    moved: int = 0
    _at_work: int = 0
    _since: float = 0.0
    _spent: float = 0.0

    def idle(self) -> float:
        """A clock that stands still while a sink is at work: a slow reader misses nothing."""
        now = self._since if self._at_work else asyncio.get_running_loop().time()
        return now - self._spent

    def through(self, sink: Sink) -> Sink:
        """The same sink, watched."""

        async def watched(data: bytes) -> None:
            loop = asyncio.get_running_loop()
            self.moved += len(data)
            if not self._at_work:
                self._since = loop.time()
            self._at_work += 1
            try:
                await sink(data)
            finally:
                self._at_work -= 1
                if not self._at_work:
                    self._spent += loop.time() - self._since

        return watched


@attrs.define(eq=False)
class Closing:
    """A sink that takes out what the program says of its own end.

    Attributes:
        token: what that begins with, after a line break.
        code: the exit code that it tells.
        over: set as soon as that is known.
    """

    token: str
    _sink: Sink
    code: int | None = None
    over: asyncio.Event = attrs.field(factory=asyncio.Event)
    _rest: bytes = b""

    async def __call__(self, data: bytes) -> None:
        """Take a chunk."""
        text = self._rest + data
        if self.code is not None:
            ready = data
        elif found := re.search(rf"\n{self.token}-end (\d+)\n".encode(), text):
            ready, self._rest = text[: found.start()] + text[found.end() :], b""
            self.code = int(found[1])
            self.over.set()
        else:
            kept = max(0, len(text) - len(self.token) - 10)
            ready, self._rest = text[:kept], text[kept:]
        if ready:
            await self._sink(ready)

    async def end(self) -> None:
        """Let through what was kept back, when nothing more comes."""
        if self._rest:
            await self._sink(self._rest)
            self._rest = b""
