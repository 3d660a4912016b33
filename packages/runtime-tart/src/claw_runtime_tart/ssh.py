"""Commands in a guest over one SSH connection; imported while the machine boots."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncssh  # noqa: TID253 - a quarter of a second, which the machine's boot hides
import attrs

from claw_core.errors import SpentInstance
from claw_core.model import IO, Control, Exit, Resize, Sink
from claw_core.streaming import typed
from claw_core.tasks import persist, stop
from claw_runtime_tart import guest
from claw_runtime_tart.cli import GuestLost
from claw_runtime_tart.reached import DRAIN, LEFT
from claw_runtime_tart.remote import STDERR, STDOUT, Remote

CHANNELS: Final = 8
"""Commands at a time on one connection; OpenSSH's server takes ten sessions, and one more is ours
while it brings a program to a terminal."""
GRACE: Final = 2.0
"""Seconds that a command has to end after each of SIGTERM and SIGKILL."""
CLOSING: Final = 1.0
"""Seconds for the server to close a channel, so that it does not count when the next is opened."""
OPENING: Final = 10.0
"""Seconds in which a server that has no channel left may have one again."""
TERMINAL: Final = "xterm-256color"
_FIFO: Final = "mkfifo -m 600 {0} 2>/dev/null; test -p {0} && exec cat > {0}"
_FROM_FIFO: Final = (
    "exec /bin/sh -c 'mkfifo -m 600 {0} 2>/dev/null; "
    'IFS= read -r l < {0}; rm -f {0}; eval "$(printf %b "$l")"\''
)
"""Either side makes the pipe, whichever comes first."""


@attrs.define(eq=False)
class Connection:
    """The one connection to a guest; a lost one is a failure, and never the end of a command."""

    _connection: asyncssh.SSHClientConnection
    _channels: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(CHANNELS))
    _bringing: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    async def run(self, program: str, token: str, io: IO, terminal: Resize | None) -> Exit:
        """Run a program of `guest`, and return how it ended.

        Args:
            program: for the guest's `sh`.
            token: names what must be found again; nobody else knows it.
            io: the streams.
            terminal: size of the terminal to give it.

        Raises:
            GuestLost: the connection was lost; how the command ends is unknown.
            SpentInstance: this call was cut short; what the command has started may go on.
        """
        line = guest.line(program)
        async with self._channels:
            if terminal is None:
                process = await self._open(guest.READER)
            else:
                process, line = await self._open_terminal(line, token, terminal), b""
            try:
                stdin = guest.preceded(line, io) if terminal is None else typed(io.stdin)
                await _attend(process, attrs.evolve(io, stdin=stdin))
            finally:
                try:
                    if not process.over.is_set():
                        await persist(_kill(process))
                finally:
                    await persist(process.close(CLOSING))
            return _exit(process)

    async def close(self) -> None:
        """Close it; the guest ends anyway."""
        self._connection.abort()

    async def _open_terminal(self, line: bytes, token: str, terminal: Resize) -> Remote:
        """Start a program with a terminal, which would show its line to the user, and cut it.

        So a pipe brings that; it is not on the guest's disk either.
        """
        path = f"/tmp/.claw-{token}"  # noqa: S108 - a pipe, of a name that nobody can guess
        async with self._bringing:
            bringing = await self._open(_FIFO.format(path))
            try:
                process = await self._open(
                    _FROM_FIFO.format(path),
                    term_type=TERMINAL,
                    term_size=(terminal.columns, terminal.rows),
                    request_pty="force",
                )
                await bringing.write(line)
                bringing.write_eof()
                over = [asyncio.create_task(one.over.wait()) for one in (bringing, process)]
                try:
                    await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    await persist(_kill(process))
                finally:
                    await persist(stop(over))
            finally:
                await persist(bringing.close(CLOSING))
        return process

    async def _open(self, remote: str, **options: Any) -> Remote:
        loop = asyncio.get_running_loop()
        until = loop.time() + OPENING
        while True:
            try:
                _, process = await self._connection.create_session(
                    Remote, remote, encoding=None, **options
                )
            except (OSError, asyncssh.Error) as error:
                if not isinstance(error, asyncssh.ChannelOpenError) or loop.time() > until:
                    raise _lost(error) from error
                await asyncio.sleep(0.05)  # the server has closed some, and counts them yet
            else:
                assert isinstance(process, Remote)
                return process


@attrs.define(eq=False)
class _Output:
    """One stream of output on its way to its sink."""

    _process: Remote
    _stream: int | None
    _sink: Sink
    _rest: float | None = None
    _left: int = attrs.field(factory=lambda: LEFT)
    _reading: asyncio.Timeout | None = None

    async def pump(self) -> None:
        """Move it until it ends, or nothing of an ended command comes any more."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                async with asyncio.timeout(self._rest) as self._reading:
                    data = await self._process.read(self._stream)
            except TimeoutError:
                return
            finally:
                self._reading = None
            if self._rest is not None:
                self._rest = max(0.0, self._rest - (loop.time() - started))
                self._left -= len(data)
            if not data or self._left < 0:
                return
            await self._sink(data)

    def finish(self) -> None:
        """The command has ended: what it wrote is here, or comes without much waiting."""
        self._rest = DRAIN
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time() + DRAIN)


async def _attend(process: Remote, io: IO) -> None:
    """Move the streams of a process until it has ended, and its output with it."""
    outputs = _Output(process, STDOUT, io.stdout), _Output(process, STDERR, io.stderr)
    pumps = [asyncio.create_task(output.pump()) for output in outputs]
    over = asyncio.create_task(process.over.wait())
    others = [
        asyncio.create_task(_feed(process, io.stdin)),
        asyncio.create_task(_control(process, io.control)),
    ]
    tasks: list[asyncio.Task[Any]] = [*pumps, over, *others]
    pending = set(tasks)
    try:
        while not all(task.done() for task in (*pumps, over)):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a stream of the caller that fails is the caller's failure
            if over in done:
                for output in outputs:
                    output.finish()
    finally:
        await persist(stop(tasks))


async def _feed(process: Remote, chunks: AsyncIterator[bytes] | None) -> None:
    if chunks is None:
        return
    async for chunk in chunks:  # one that fails is the caller's failure
        try:
            await process.write(chunk)
        except OSError:
            return  # it does not want it: its exit code says what it thinks of that
    process.write_eof()


async def _control(process: Remote, control: AsyncIterator[Control] | None) -> None:
    if control is None:
        return
    async for message in control:
        if isinstance(message, Resize):
            process.resize(message.columns, message.rows)
        else:
            process.send_signal(signal.Signals(message.number).name.removeprefix("SIG"))


async def _kill(process: Remote) -> None:
    """End a command's process group.

    Raises:
        SpentInstance: always, since nothing proves that no descendant has left the group.
    """
    for name in ("TERM", "KILL"):
        process.send_signal(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.over.wait()
            break
    raise SpentInstance(
        "the command was cut short, and what it has started may go on in the guest",
        remedy="leave the session: its teardown destroys the machine",
    )


def _exit(process: Remote) -> Exit:
    if process.lost:
        raise _lost(None)
    if process.signal is not None:
        number = int(getattr(signal, f"SIG{process.signal}", signal.SIGKILL))
        return Exit(128 + number, signal=number)
    if process.status is None:
        raise _lost(None)
    return Exit(process.status & 0xFF)


def _lost(error: BaseException | None) -> GuestLost:
    why = f": {error}" if error is not None and str(error) else ""
    return GuestLost(
        f"the connection to the guest was lost{why}",
        remedy="see whether the guest has crashed; how the command ended is unknown",
    )
