"""A command in an instance that another process of the same user owns: what is asked, and how.

A connection carries one command. The request comes first, with one end of a pipe for each standard
stream. It is never the caller's own stream: to read a terminal of another session would stop the
owner. Then come signals and sizes, and back comes how the command ended. The end of the connection,
on either side, ends the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from claw_core.descriptors import Owned, Pump, close, feed
from claw_core.endpoint import address
from claw_core.errors import ClawError
from claw_core.model import IO, Control, Exit, Resize, Signal
from claw_core.tasks import persist, stop

VERSION: Final = 1
_PARTS: Final = ("message", "runtime", "phase", "instance", "remedy", "cleaned")
STOP_TIMEOUT: Final = 10.0
"""Seconds that the owner has to end a command that is not wanted any more."""


@attrs.frozen
class Request:
    """What shall run; see `Session.run`."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    workdir: str | None = None
    timeout: float | None = None
    terminal: Resize | None = None

    def encode(self) -> bytes:
        """One line."""
        return line({"v": VERSION, **attrs.asdict(self)})

    @classmethod
    def decode(cls, text: bytes) -> Request:
        """Read a line.

        Raises:
            KeyError, TypeError, ValueError: it is none, or of another version.
        """
        value = json.loads(text)
        if value.pop("v") != VERSION:
            raise ValueError(f"it is not of version {VERSION}")
        size = value.pop("terminal")
        request = cls(**value, terminal=Resize(**size) if size else None)
        return attrs.evolve(request, argv=tuple(request.argv))


def line(value: Mapping[str, Any]) -> bytes:
    """What goes over the connection, either way."""
    return json.dumps(value).encode() + b"\n"


def encoded(error: ClawError) -> dict[str, Any]:
    """A failure, as the answer to a request."""
    return {"error": {key: getattr(error, key) for key in _PARTS}, "exit_code": error.exit_code}


def decoded(value: Mapping[str, Any]) -> ClawError:
    """A failure that another process has encoded."""
    error = ClawError(**value["error"])
    error.exit_code = value["exit_code"]
    return error


async def run(path: Path, request: Request, io: IO) -> Exit:
    """Run a command to its end; when cancelled, it is ended before this returns.

    Args:
        path: the socket of the instance.
        request: what to run.
        io: its streams.

    Raises:
        ClawError: the owner does not answer, has failed, or has ended the session meanwhile.
    """
    try:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            connection = ours.enter_context(await _connect(path))
            feeding, stdin = _pipe(ours, theirs, host_writes=True)
            stdout_from, stdout = _pipe(ours, theirs)
            stderr_from, stderr = _pipe(ours, theirs)
            await _ask(connection, request, [stdin, stdout, stderr])
            theirs.close()
            pumps = Pump(stdout_from.number, io.stdout), Pump(stderr_from.number, io.stderr)
            outputs = [asyncio.create_task(pump.run()) for pump in pumps]
            others = [asyncio.create_task(feed(feeding, io.stdin))]
            if io.control is not None:
                others.append(asyncio.create_task(_control(connection, io.control)))
            return await _attend(connection, outputs, others)
    finally:
        await close(io.stdin)


async def _attend(
    connection: socket.socket,
    outputs: list[asyncio.Task[None]],
    others: list[asyncio.Task[None]],
) -> Exit:
    """Wait for the answer and for the rest of the output; a stream that fails is our failure."""
    answer = asyncio.create_task(_answer(connection))
    pending: set[asyncio.Task[Any]] = {answer, *outputs, *others}
    try:
        while not all(task.done() for task in (answer, *outputs)):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {answer}:
                task.result()
    except BaseException:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        await persist(stop([*outputs, *others]))
        await persist(asyncio.wait([answer], timeout=STOP_TIMEOUT))
        raise
    finally:
        await persist(stop([answer, *outputs, *others]))
    return answer.result()


async def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with address(path) as name:
            await asyncio.get_running_loop().sock_connect(connection, name)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise ClawError(
                f"its owner takes no commands: {error.strerror}",
                remedy="see its state in `claw ps`",
            ) from error
        raise
    return connection


async def _ask(connection: socket.socket, request: Request, streams: list[Owned]) -> None:
    data = request.encode()
    try:
        sent = socket.send_fds(connection, [data[:1]], [stream.number for stream in streams])
        await asyncio.get_running_loop().sock_sendall(connection, data[sent:])
    except OSError as error:
        raise _lost() from error


async def _answer(connection: socket.socket) -> Exit:
    """How the command ended.

    Raises:
        ClawError: see `run`.
    """
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := await asyncio.get_running_loop().sock_recv(connection, 1 << 16):
            data += chunk
    if not data.endswith(b"\n"):
        raise _lost()
    value = json.loads(data)
    if "error" in value:
        raise decoded(value)
    return Exit(**value)


async def _control(connection: socket.socket, control: AsyncIterator[Control]) -> None:
    loop = asyncio.get_running_loop()
    async for message in control:
        kind = "signal" if isinstance(message, Signal) else "resize"
        with contextlib.suppress(OSError):  # its end comes as the answer
            await loop.sock_sendall(connection, line({kind: attrs.asdict(message)}))


def _lost() -> ClawError:
    return ClawError(
        "the session has ended, and the command with it",
        phase="execute",
        cleaned="the command ends with its instance",
    )


def _pipe(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack, *, host_writes: bool = False
) -> tuple[Owned, Owned]:
    """A pipe: our end, which never blocks, and the owner's."""
    reading, writing = map(Owned, os.pipe())
    mine, other = (writing, reading) if host_writes else (reading, writing)
    ours.callback(mine.close)
    theirs.callback(other.close)
    os.set_blocking(mine.number, False)
    return mine, other
