"""The owner's side of a command that another process asks for; `remote` has the other side."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from claw_core import lifeline
from claw_core.descriptors import CHUNK, readable, receive, write
from claw_core.errors import ClawError
from claw_core.model import Control, Resize, Signal
from claw_core.remote import Request, encoded, line
from claw_core.tasks import persist, stop

if TYPE_CHECKING:
    from claw_core.session import Session

REQUEST_TIMEOUT: Final = 10.0
"""Seconds within which a request must have come."""
REQUEST_LIMIT: Final = 16 << 20
"""Bytes of the longest request, more than any kernel takes as arguments and environment."""

Messages = asyncio.Queue[Control]


async def answer(connection: socket.socket, session: Session) -> None:
    """Run the one command that a connection asks for, and say how it ended.

    It ends with the connection, and when this is cancelled; then nothing is said.
    """
    with contextlib.ExitStack() as held:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                lines = _Lines(connection)
                streams = await lines.begin(held)
                request = Request.decode(await lines.next())
        except (EOFError, TimeoutError):
            return
        except (KeyError, TypeError, ValueError) as error:
            reply = encoded(ClawError(f"the request cannot be read: {error}"))
        else:
            ended = await _run(request, streams, lines, session)
            if ended is None:
                return
            reply = ended
        held.close()  # the streams end before their command is said to have ended
        with contextlib.suppress(OSError):  # nobody wants to know any more
            await asyncio.get_running_loop().sock_sendall(connection, line(reply))


async def _run(
    request: Request, streams: tuple[int, int, int], lines: _Lines, session: Session
) -> dict[str, Any] | None:
    """Return the reply; None where the other side has gone."""
    stdin, stdout, stderr = streams
    messages: Messages = asyncio.Queue()
    work = asyncio.create_task(
        session.run(
            request.argv,
            stdin=_chunks(stdin),
            stdout=functools.partial(write, stdout),
            stderr=functools.partial(write, stderr),
            control=_control(messages),
            env=request.env,
            workdir=request.workdir,
            timeout=request.timeout,
            terminal=request.terminal,
            recorded=False,
        )
    )
    following = asyncio.create_task(_follow(lines, messages))
    try:
        await asyncio.wait((work, following), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await persist(stop((work, following)))
    if work.cancelled():
        return None
    try:
        return attrs.asdict(work.result())
    except ClawError as error:
        return encoded(error)
    except BrokenPipeError:
        return None  # nobody reads what it writes


async def _follow(lines: _Lines, messages: Messages) -> None:
    """Take signals and sizes, and return when the other side has gone or talks nonsense."""
    with contextlib.suppress(EOFError, KeyError, TypeError, ValueError, ClawError):
        while True:
            ((kind, value),) = json.loads(await lines.next()).items()
            messages.put_nowait({"signal": Signal, "resize": Resize}[kind](**value))


async def _control(messages: Messages) -> AsyncIterator[Control]:
    while True:
        yield await messages.get()


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    while True:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            await readable(descriptor)
            continue
        if not data:
            return
        yield data


class _Lines:
    """What comes down a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    async def begin(self, held: contextlib.ExitStack) -> tuple[int, int, int]:
        """Receive the streams, which come with the first bytes, and never block.

        Raises:
            EOFError: the other side has gone.
            ValueError: they have not come.
        """
        await readable(self._connection.fileno())
        with lifeline.forbid_fork():
            self._received, descriptors = receive(self._connection, 3)
            for descriptor in descriptors:
                held.callback(lifeline.close, lifeline.keep(descriptor))
        if not self._received:
            raise EOFError
        stdin, stdout, stderr = descriptors
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
        return stdin, stdout, stderr

    async def next(self) -> bytes:
        """The next line.

        Raises:
            EOFError: there is none.
            ValueError: it is too long.
        """
        loop = asyncio.get_running_loop()
        while b"\n" not in self._received:
            if len(self._received) > REQUEST_LIMIT:
                raise ValueError("it is too long")
            try:
                chunk = await loop.sock_recv(self._connection, CHUNK)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise EOFError
            self._received += chunk
        text, _, self._received = self._received.partition(b"\n")
        return text
