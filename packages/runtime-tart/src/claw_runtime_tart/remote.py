"""A command in a guest, as its SSH channel: told at once that it has ended, and bounded in memory.

asyncssh's own process opens its window again with every chunk that is read, so that a reader who is
slower than the guest gets all of the output into memory. Here it stays closed until everything is
read that has come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

import asyncssh  # noqa: TID253 - see `ssh`

STDOUT: Final = None
STDERR: Final = asyncssh.EXTENDED_DATA_STDERR
HELD: Final = 2 << 20
"""Bytes that are held until a reader takes them all; as much again is on its way."""
_CHUNK: Final = 1 << 16


class Remote(asyncssh.SSHClientSession[bytes]):
    """One command.

    Attributes:
        over: set when it has ended, whoever still has its output open.
        status: its exit code.
        signal: what has ended it.
        lost: the connection has ended, and with it maybe some of the output.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.status: int | None = None
        self.signal: str | None = None
        self.lost = False
        self._channel: asyncssh.SSHClientChannel[bytes]
        self._chunks: dict[int | None, deque[bytes]] = {STDOUT: deque(), STDERR: deque()}
        self._news = {STDOUT: asyncio.Event(), STDERR: asyncio.Event()}
        self._held = 0
        self._paused = False
        self._complete = False
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def read(self, stream: int | None) -> bytes:
        """What has come of a stream; nothing at its end."""
        chunks, news = self._chunks[stream], self._news[stream]
        while not chunks and not (self._complete or self._closed.is_set()):
            news.clear()
            await news.wait()
        data = bytearray()
        while chunks and len(data) < _CHUNK:
            data += chunks.popleft()
        self._held -= len(data)
        if self._paused and not self._held:
            self._paused = False
            self._channel.resume_reading()
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Send to its standard input.

        Raises:
            OSError: it takes nothing any more.
        """
        self._channel.write(data)
        await self._writable.wait()

    def write_eof(self) -> None:
        """End its standard input."""
        with contextlib.suppress(OSError):
            self._channel.write_eof()

    def send_signal(self, name: str) -> None:
        """Send a signal to its process group, if it is there."""
        with contextlib.suppress(OSError):
            self._channel.send_signal(name)

    def resize(self, columns: int, rows: int) -> None:
        """Give its terminal another size."""
        with contextlib.suppress(OSError):
            self._channel.change_terminal_size(columns, rows)

    async def close(self, seconds: float) -> None:
        """Close the channel, and wait a while for the server to do so, for it has only a few."""
        self._channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """See asyncssh."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """See asyncssh."""
        self._chunks[datatype].append(data)
        self._news[datatype].set()
        self._held += len(data)
        if self._held >= HELD and not self._paused:
            self._paused = True
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        """See asyncssh."""
        self._complete = True
        self._wake()
        return True

    def exit_status_received(self, status: int) -> None:
        """See asyncssh."""
        self.status = status
        self.over.set()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """See asyncssh."""
        self.signal = signal
        self.over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncssh."""
        self.lost = exc is not None and not self._complete
        self._closed.set()
        self.over.set()
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        """See asyncssh."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncssh."""
        self._writable.set()

    def _wake(self) -> None:
        for news in self._news.values():
            news.set()
