"""What an agent says while it is asked, taken from its standard streams as it comes."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Final

import attrs

from claw_core.readings import Reading

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.model import Sink

LINE_LIMIT: Final = 64 << 20
"""Bytes of a line that an agent writes; one that is longer counts as not said."""
TAIL: Final = 4096
"""Bytes of its standard error that are remembered."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@attrs.define(eq=False)
class Lines:
    """A sink for an agent's standard output, which hands on the answer that is in it.

    Attributes:
        reading: what is known of the answer.
        timer: expires when the agent's credentials are refused and its patience is over.
    """

    _agent: Agent
    reading: Reading
    _text: Sink | None
    _patience: float
    timer: asyncio.Timeout = attrs.field(init=False, factory=lambda: asyncio.timeout(None))
    _buffer: bytearray = attrs.field(init=False, factory=bytearray)

    async def __call__(self, data: bytes) -> None:
        """Take a chunk, and hand on what is in its whole lines."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            await self._line(bytes(self._buffer) + line)
            self._buffer.clear()
        if len(self._buffer) + len(rest) <= LINE_LIMIT:
            self._buffer += rest

    async def end(self) -> None:
        """Take what is left: a last line without its end."""
        await self._line(bytes(self._buffer))

    async def _line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return  # agents also write what is meant for people
        if not isinstance(event, dict):
            return
        said = self._agent.read(event, self.reading)
        if self.reading.refused != (self.timer.when() is not None) and not self.timer.expired():
            until = asyncio.get_running_loop().time() + self._patience
            self.timer.reschedule(until if self.reading.refused else None)
        if said and self._text is not None:
            await self._text(said.encode(errors="replace"))


@attrs.define(eq=False)
class Tail:
    """A sink that remembers the end of what it hands on."""

    _sink: Sink | None
    _end: bytes = attrs.field(init=False, default=b"")

    async def __call__(self, data: bytes) -> None:
        """Take a chunk, and hand it on."""
        self._end = (self._end + data)[-TAIL:]
        if self._sink is not None:
            await self._sink(data)

    def text(self) -> str:
        """The end, as a message may quote it."""
        return _COLOUR.sub("", self._end.decode(errors="replace")).strip()
