"""Waits for plain descriptors, reads, writes and receives them: with back-pressure, no threads."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import attrs

from claw_core.model import Sink

CHUNK = 1 << 18
"""Bytes that are read at once."""


@attrs.define(eq=False)
class Owned:
    """A descriptor that is closed once, by whoever comes first."""

    number: int

    def close(self) -> None:
        """Close it, unless that has happened."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)


async def readable(descriptor: int) -> None:
    """Return when reading would not block."""
    loop = asyncio.get_running_loop()
    await _event(descriptor, loop.add_reader, loop.remove_reader)


async def writable(descriptor: int) -> None:
    """Return when writing would not block."""
    loop = asyncio.get_running_loop()
    await _event(descriptor, loop.add_writer, loop.remove_writer)


async def _event(
    descriptor: int, add: Callable[..., object], remove: Callable[[int], object]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def notice() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, notice)
    try:
        await ready
    finally:
        remove(descriptor)


@attrs.define(eq=False)
class Pump:
    """Hands everything from a non-blocking descriptor to a sink; reads nothing while that works.

    Attributes:
        moved: bytes that were read so far.
        busy: whether the sink is at work.
    """

    descriptor: int
    sink: Sink
    moved: int = 0
    busy: bool = False

    async def run(self) -> None:
        """Return at the end of the stream."""
        while True:
            try:
                data = self.read()
            except BlockingIOError:
                await readable(self.descriptor)
                continue
            if not data:
                return
            self.moved += len(data)
            self.busy = True
            try:
                await self.sink(data)
            finally:
                self.busy = False

    def read(self) -> bytes:
        """Read once; nothing is the end of the stream.

        Raises:
            BlockingIOError: there is nothing to read yet.
        """
        return os.read(self.descriptor, CHUNK)


async def write(descriptor: int, data: bytes) -> None:
    """Write all of it to a non-blocking descriptor."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await writable(descriptor)


async def feed(owned: Owned, chunks: AsyncIterator[bytes] | None) -> None:
    """Write everything and close; a reader that is gone ends it, as the reader wanted."""
    try:
        if chunks is None:
            return
        async for chunk in chunks:
            await write(owned.number, chunk)
    except BrokenPipeError:
        return
    finally:
        owned.close()


async def close(chunks: object) -> None:
    """Let an asynchronous generator clean up, should it be one and not have come to its end."""
    aclose = getattr(chunks, "aclose", None)
    if aclose is not None:
        await aclose()


def receive(channel: socket.socket, limit: int) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that come with them, which no child inherits.

    Args:
        channel: a Unix socket.
        limit: number of descriptors that are taken.

    Raises:
        OSError: nothing can be received, or not yet.
    """
    import array  # most programs receive none

    room = socket.CMSG_SPACE(limit * array.array("i").itemsize)
    # The standard library's recv_fds ignores its flags before Python 3.12.
    data, ancillary, _, _ = channel.recvmsg(CHUNK, room, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    for descriptor in received:
        os.set_inheritable(descriptor, False)
    return data, list(received)
