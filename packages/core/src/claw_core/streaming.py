"""Runs a tool of the host as if it were the command: its streams, its end, and its end by force."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Final

import attrs

from claw_core.model import IO, Control, Signal, Sink
from claw_core.tasks import persist, stop

TAIL: Final = 4096
"""Bytes of standard error that are kept for a message."""
END_OF_FILE: Final = b"\x04"


@attrs.frozen
class Streamed:
    """How a tool ended whose streams were passed through.

    Attributes:
        code: as `subprocess` gives it, negative for signals; `Exit.from_wait` translates it.
        errors: the end of what it wrote to standard error, up to 4 KiB.
    """

    code: int
    errors: bytes


async def attend(process: asyncio.subprocess.Process, io: IO) -> Streamed:
    """Move the streams of a process until it has ended, and return how.

    Signals go to its process group. However this is left, its process group is ended first.

    Args:
        process: the leader of a session of its own, with a pipe for each stream.
        io: the streams of the command; a sink that fails is the caller's failure, and is raised.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = bytearray()
    outputs = [
        asyncio.create_task(_pump(process.stdout, io.stdout, bytearray())),
        asyncio.create_task(_pump(process.stderr, io.stderr, errors)),
    ]
    inputs = [
        asyncio.create_task(_feed(process.stdin, io.stdin)),
        asyncio.create_task(_signal(process, io.control)),
    ]
    try:
        pending = {*outputs, *inputs}
        while not all(task.done() for task in outputs):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return Streamed(await process.wait(), bytes(errors))
    finally:
        await persist(end(process))
        await persist(stop([*outputs, *inputs]))
        close = getattr(io.stdin, "aclose", None)
        if close is not None:
            await close()


async def typed(chunks: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """What is typed at a terminal for an input: all of it, and then what ends a file there."""
    last = b"\n"
    if chunks is not None:
        async for chunk in chunks:
            yield chunk
            last = chunk[-1:] or last
    # In the middle of a line the first one only sends the line off.
    yield END_OF_FILE if last in b"\r\n" else 2 * END_OF_FILE


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process and everything in its session, and return when it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _pump(stream: asyncio.StreamReader, sink: Sink, tail: bytearray) -> None:
    while chunk := await stream.read(1 << 16):
        tail += chunk
        del tail[:-TAIL]
        await sink(chunk)


async def _feed(stream: asyncio.StreamWriter, chunks: AsyncIterator[bytes] | None) -> None:
    try:
        if chunks is not None:
            async for chunk in chunks:
                stream.write(chunk)
                await stream.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the tool does not want it: its exit code says what it thinks
    finally:
        stream.close()


async def _signal(
    process: asyncio.subprocess.Process, control: AsyncIterator[Control] | None
) -> None:
    if control is not None:
        async for message in control:
            if isinstance(message, Signal) and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, message.number)
