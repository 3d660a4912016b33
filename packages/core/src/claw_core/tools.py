"""Tools of the host: run without a shell, each with an owner, a deadline and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import attrs

from claw_core.errors import RuntimeFault
from claw_core.model import IO
from claw_core.streaming import Streamed, attend

OUTPUT_LIMIT: Final = 1 << 20
"""Bytes of each stream of a tool that are kept; more is dropped, and said in `Completed`."""


@attrs.frozen
class Completed:
    """How a tool ended; its output is capped at `OUTPUT_LIMIT` bytes per stream."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


async def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    descriptors: Sequence[int] = (),
) -> Completed:
    """Run a tool to its end; see `Host.run`, which backends use where there is an instance.

    Raises:
        RuntimeFault: the tool cannot be started, or did not end in time (and was killed).
    """
    stdout, stderr = _Kept(), _Kept()
    timer = asyncio.timeout(timeout)
    try:
        async with timer:
            io = IO(_once(stdin) if stdin else None, stdout, stderr)
            done = await stream(argv, io, env=env, descriptors=descriptors)
    except TimeoutError:
        if not timer.expired():
            raise
        raise RuntimeFault(f"{argv[0]} did not end within {timeout:g} s and was killed") from None
    truncated = stdout.truncated or stderr.truncated
    return Completed(tuple(argv), done.code, bytes(stdout.data), bytes(stderr.data), truncated)


async def stream(
    argv: Sequence[str],
    io: IO,
    *,
    env: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Streamed:
    """Run a tool in place of a command; see `Host.stream`.

    Raises:
        RuntimeFault: the tool cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeFault(f"cannot run {argv[0]}: {error.strerror}") from error
    return await attend(process, io)


@attrs.define(eq=False)
class _Kept:
    """A sink that keeps the beginning of a stream."""

    data: bytearray = attrs.field(factory=bytearray)
    truncated: bool = False

    async def __call__(self, chunk: bytes) -> None:
        room = OUTPUT_LIMIT - len(self.data)
        self.data += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
