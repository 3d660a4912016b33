"""Sends a command its input, no faster than the command takes it.

What a call of `container exec` reads, the service takes at once and keeps in memory, however much
it is; and inside, one thread serves the streams of all commands, which stands still while it writes
to a full pipe. So the input goes in pieces, each behind a line with its size, and a piece that was
taken is told before many others follow: see `scripts.COMMAND`.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Final

import attrs

from claw_core.descriptors import close
from claw_core.tasks import persist, stop

WINDOW: Final = 32 << 10
"""Bytes under way to a command that may not read: a pipe takes them, in whatever portions."""
BULK: Final = 8 << 20
"""Bytes under way to a command that reads all."""


@attrs.define(eq=False)
class Feed:
    """The input of one command.

    Attributes:
        chunks: what it is to read.
        window: bytes that are under way at most.
    """

    chunks: AsyncIterator[bytes]
    window: int = WINDOW
    _sizes: collections.deque[int] = attrs.field(factory=collections.deque)
    _under_way: int = 0
    _drained: bool = False
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _over: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def whole(self) -> bool:
        """Whether all of it was taken."""
        return self._drained and not self._under_way

    async def pieces(self) -> AsyncIterator[bytes]:
        """The input in pieces, until its end or `cut`."""
        over = asyncio.create_task(self._over.wait())
        try:
            while (chunk := await self._next(over)) is not None:
                for start in range(0, len(chunk), self.window // 2):
                    piece = chunk[start : start + self.window // 2]
                    line = b"%d\n" % len(piece)
                    await self._until(self.window - len(line) - len(piece))
                    self._sizes.append(len(line) + len(piece))
                    self._under_way += self._sizes[-1]
                    yield line + piece
            await self._until(0)
        finally:
            await persist(stop([over]))
            await close(self.chunks)

    def taken(self) -> None:
        """Note that the next piece was taken."""
        if self._sizes:
            self._under_way -= self._sizes.popleft()
            self._news.set()

    def cut(self) -> None:
        """End the input: nobody reads it any more."""
        self._over.set()
        self._news.set()

    async def _next(self, over: asyncio.Task[object]) -> bytes | None:
        """The next chunk; None at the end, whichever comes first."""
        step = asyncio.ensure_future(anext(self.chunks, None))
        try:
            await asyncio.wait({step, over}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return None
            self._drained = step.result() is None
            return step.result()
        finally:
            await persist(stop([step]))

    async def _until(self, under_way: int) -> None:
        while self._under_way > under_way and not self._over.is_set():
            self._news.clear()
            await self._news.wait()
