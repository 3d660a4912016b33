"""Commands in a guest through Tart's guest agent: no network, no SSH, and less is known of them.

The agent gives an exit code of the guest's command or of its own, so the program says how it ended
at the end of its standard error, after a token that nobody else knows.
"""

from __future__ import annotations

from typing import Final

import attrs

from claw_core.errors import RuntimeFault, SpentInstance, Unsupported
from claw_core.host import Host
from claw_core.model import IO, Exit, Resize, Sink
from claw_runtime_tart import cli, guest
from claw_runtime_tart.cli import GuestLost, Tart

_WRAPPED: Final = """
(
{program}
)
code=$?
printf '\\n%s %s\\n' {token}-end "$code" >&2
"""


@attrs.frozen(eq=False)
class Agent:
    """The guest's agent, which `tart exec` reaches.

    Args:
        tart: the command.
        host: of the instance.
        name: of the machine.
        without: names of the run's secrets.
    """

    tart: Tart
    host: Host
    name: str
    without: tuple[str, ...]

    async def run(self, program: str, token: str, io: IO, terminal: Resize | None) -> Exit:
        """Run a program of `guest`, and return how it ended.

        Args:
            program: for the guest's `sh`.
            token: ends what the program says of its end; nobody else knows it.
            io: the streams.
            terminal: must be None.

        Raises:
            GuestLost: the agent cannot be reached, or was lost; how the command ends is unknown.
            SpentInstance: this call was cut short; what the command has started may go on.
            Unsupported: a terminal is asked for.
        """
        if terminal is not None:
            raise Unsupported("Tart's guest agent gives no terminal", remedy="use transport ssh")
        line = guest.line(_WRAPPED.format(program=program, token=token))
        closing = Closing(f"\n{token}-end ".encode(), io.stderr)
        argv = (self.tart.executable, "exec", "-i", self.name, "/bin/sh", "-c", guest.READER)
        wrapped = attrs.evolve(io, stdin=guest.preceded(line, io), stderr=closing, control=None)
        try:
            done = await self.host.stream(argv, wrapped, env=self.tart.environment(self.without))
        except RuntimeFault:
            raise
        except BaseException as error:
            raise SpentInstance(
                "the command was cut short, and what it has started may go on in the guest",
                remedy="leave the session: its teardown destroys the machine",
            ) from error
        code = await closing.end()
        if code is None:
            said = done.errors.decode(errors="replace").strip()
            raise GuestLost(
                f"the guest agent was lost or cannot be reached: {said or f'code {done.code}'}",
                remedy=cli.remedy_for(said)
                or "the image needs Tart's guest agent; see whether the guest has crashed",
            )
        return Exit(code)

    async def close(self) -> None:
        """Every call is its own connection."""


@attrs.define(eq=False)
class Closing:
    """A sink that keeps back what may be the program's own end of the stream."""

    _mark: bytes
    _sink: Sink
    _rest: bytearray = attrs.field(factory=bytearray)

    async def __call__(self, data: bytes) -> None:
        """Take a chunk."""
        self._rest += data
        keep = len(self._mark) + 8
        found = self._rest.find(self._mark)
        ready = len(self._rest) - keep if found < 0 else found
        if ready > 0:
            chunk = bytes(self._rest[:ready])
            del self._rest[:ready]
            await self._sink(chunk)

    async def end(self) -> int | None:
        """The code that the stream ends with; where it has none, what was kept back goes on."""
        head, mark, tail = bytes(self._rest).partition(self._mark)
        code = tail.strip()
        if mark and code.isdigit():
            return int(code)
        if head or mark:
            await self._sink(bytes(self._rest))
        return None
