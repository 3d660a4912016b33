"""Sends an archive into an instance, no faster than it is unpacked there.

What a call of `container exec` reads, the service takes at once and keeps in memory, however much
it is. So the archive goes in pieces, and each is waited for before many others follow.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Final

import attrs

PIECE: Final = 1 << 20
"""Bytes of a piece at most."""
WINDOW: Final = 8 << 20
"""Bytes that are under way at most."""


@attrs.define(eq=False)
class Sender:
    """The two ends of `scripts.UPLOAD` on this side: `pieces` is its input, `taken` its output.

    Attributes:
        whole: whether all of it was taken.
    """

    archive: AsyncIterator[bytes]
    whole: bool = False
    _sizes: collections.deque[int] = attrs.field(factory=collections.deque)
    _under_way: int = 0
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The archive in pieces, and then its end."""
        async for chunk in self.archive:
            for start in range(0, len(chunk), PIECE):
                piece = chunk[start : start + PIECE]
                await self._until(WINDOW - len(piece))
                self._sizes.append(len(piece))
                self._under_way += len(piece)
                yield b"%d\n" % len(piece)
                yield piece
        await self._until(0)
        self.whole = True
        yield b"end\n"

    async def taken(self, lines: bytes) -> None:
        """Count what the other side says it has taken: a line for each piece."""
        for _ in range(min(lines.count(b"\n"), len(self._sizes))):
            self._under_way -= self._sizes.popleft()
        self._news.set()

    async def _until(self, under_way: int) -> None:
        while self._under_way > under_way:
            self._news.clear()
            await self._news.wait()
