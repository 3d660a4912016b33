"""An engine whose creations begin late, and whether or not their client still lives."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from runtime_docker.engines import TestEngine


@contextlib.asynccontextmanager
async def slow(engine: TestEngine, path: Path, seconds: float) -> AsyncIterator[str]:
    """Stand between claw and an engine, and hold every creation back but a tombstone's.

    Gives the address; at the end every creation has been answered.
    """
    working: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        working.add(task)
        try:
            await _pass_on(engine, reader, writer, seconds)
        finally:
            await _close(writer)

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield f"unix://{path}"
    await asyncio.wait(working)


async def _pass_on(
    engine: TestEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    try:
        request = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return
    length = re.search(rb"content-length: (\d+)", request, re.IGNORECASE)
    request += await reader.readexactly(int(length[1]) if length else 0)
    if b"/containers/create" in request.split(b"\r\n")[0] and b"claw.tombstone" not in request:
        await asyncio.sleep(seconds)
    answers, asks = await asyncio.open_unix_connection(engine.socket)
    asks.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    while data := await answers.read(1 << 16):
        with contextlib.suppress(OSError):  # its client is gone, and nobody minds
            writer.write(data)
            await writer.drain()
    await _close(asks)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
