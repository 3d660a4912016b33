"""A server that answers as it is told: slowly, wrongly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from claw_runtime_docker.endpoint import Endpoint
from claw_runtime_docker.engine import Engine

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK"
HANG = b"hang"


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@contextlib.asynccontextmanager
async def serving(
    directory: Path, answers: Mapping[str, bytes | list[bytes]], timeout: float = 5.0
) -> AsyncIterator[Engine]:
    """An engine whose answers are given per request line (a regular expression), as raw bytes.

    Of a list, every request takes the first one away, and the last one stays. After an answer the
    connection is closed, after `HANG` it is kept open without a word.
    """
    path = directory / "bad.sock"
    stopping = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
            said = next((a for p, a in answers.items() if re.search(p, line)), PING)
            if isinstance(said, list):
                said = said.pop(0) if said[1:] else said[0]
            writer.write(said.replace(HANG, b""))
            await writer.drain()
            if HANG in said:
                await stopping.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield Engine(Endpoint.parse(f"unix://{path}", "a test"), timeout)
    finally:
        stopping.set()
        server.close()
