"""Keeps what a command wrote until its reader takes it.

The command's output must be taken at any time: one that is not taken for three seconds at its end
is lost, and the stream of one command may hold up those of others. So a slow reader finds it here,
beyond some MiB in an unnamed temporary file; and the command is paused meanwhile, see `commands`.
"""

from __future__ import annotations

import asyncio
import collections
import os
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Final

import attrs

from claw_core.errors import OutputLimitExceeded, RuntimeFault
from claw_core.tasks import in_thread

MEMORY: Final = 4 << 20
"""Bytes that are held in memory."""
HIGH: Final = 16 << 20
"""Bytes at which the writer is to be paused."""
LOW: Final = 2 << 20
"""Bytes at which it is to go on."""
LIMIT: Final = 1 << 30
"""Bytes that are held at most, for a writer that cannot be paused."""


@attrs.define(eq=False)
class Spool:
    """A queue of pieces, each of one stream, in the order in which they came.

    Attributes:
        full: set while so much is held that the writer should be paused.
        roomy: set while it should not.
    """

    full: asyncio.Event = attrs.field(factory=asyncio.Event)
    roomy: asyncio.Event = attrs.field(factory=asyncio.Event)
    _pieces: collections.deque[tuple[int, bytes | int]] = attrs.field(factory=collections.deque)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    _file: IO[bytes] | None = None
    _memory: int = 0
    _read: int = 0
    _written: int = 0
    _over: bool = False
    _dropping: bool = False

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._memory + self._written - self._read

    async def put(self, channel: int, data: bytes) -> None:
        """Take a piece.

        Raises:
            OutputLimitExceeded: too much is held already.
            RuntimeFault: there is no room on the disk.
        """
        async with self._turn:
            if self._dropping or not data:
                return
            if self.size + len(data) > LIMIT:
                raise OutputLimitExceeded(
                    f"the command wrote {LIMIT >> 20} MiB that nobody read",
                    remedy="read its output faster, or let it write to a file",
                )
            piece: bytes | int = data
            if self._written > self._read or self._memory + len(data) > MEMORY:
                await self._spill(data)
                piece = len(data)
            else:
                self._memory += len(data)
            self._pieces.append((channel, piece))
            self._tell()

    async def pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield every piece, until `finish` was called and nothing is left."""
        while True:
            while not self._pieces:
                if self._over:
                    return
                self._news.clear()
                await self._news.wait()
            async with self._turn:
                channel, piece = self._pieces.popleft()
                data = piece if isinstance(piece, bytes) else await self._back(piece)
                if isinstance(piece, bytes):
                    self._memory -= len(data)
                self._tell()
            yield channel, data

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._over = True
        self._news.set()

    def drop(self) -> None:
        """Forget what comes from now on: nobody will read it."""
        self._dropping = True

    async def close(self) -> None:
        """Give back the disk."""
        if self._file is not None:
            await in_thread(self._file.close)

    def _tell(self) -> None:
        self._news.set()
        if self.size >= HIGH:
            self.full.set()
            self.roomy.clear()
        elif self.size <= LOW:
            self.roomy.set()
            self.full.clear()

    async def _spill(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = await in_thread(_open)
            await in_thread(_write, self._file.fileno(), data, self._written)
        except OSError as error:
            raise RuntimeFault(
                f"the output that nobody reads cannot be kept: {error.strerror}",
                remedy=f"read it faster, or free space in {tempfile.gettempdir()}",
            ) from error
        self._written += len(data)

    async def _back(self, size: int) -> bytes:
        assert self._file is not None
        data = await in_thread(os.pread, self._file.fileno(), size, self._read)
        self._read += size
        if self._read == self._written:
            await in_thread(self._file.truncate, 0)
            self._read = self._written = 0
        return data


def _open() -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
