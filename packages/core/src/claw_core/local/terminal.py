"""The host's end of a command's terminal, which the instance makes in its own file tree."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import termios
from contextlib import ExitStack

from claw_core.descriptors import Owned, Pump, readable, receive, write
from claw_core.model import IO, Resize
from claw_core.streaming import typed


class Terminal(Pump):
    """A terminal on its way from the instance; it is there when the command is about to start.

    Args:
        io: what is at the host's end; standard error stays empty.
        ours: closes the host's ends.
        theirs: closes what is passed.

    Attributes:
        passed: what goes to the instance.
        pumps: what carries the output: this.
    """

    def __init__(self, io: IO, ours: ExitStack, theirs: ExitStack) -> None:
        super().__init__(-1, io.stdout)
        channel, end = socket.socketpair()
        self._channel = ours.enter_context(channel)
        self._channel.setblocking(False)
        self.passed = (theirs.enter_context(end).fileno(),)
        self.pumps = (self,)
        self._stdin = io.stdin
        self._arrived = asyncio.Event()
        self._owned = Owned(-1)
        ours.callback(self._owned.close)

    async def run(self) -> None:
        """Carry the output until no process has the terminal open any more."""
        await readable(self._channel.fileno())
        _, received = receive(self._channel, 1)
        if not received:
            return  # why there is none comes up the leash
        (self.descriptor,) = received
        self._owned.number = self.descriptor
        os.set_blocking(self.descriptor, False)
        self._arrived.set()
        await super().run()

    def read(self) -> bytes:
        """Read once; that everybody has closed the terminal is the end of the stream."""
        try:
            return super().read()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    async def feed(self) -> None:
        """Type the input, and at its end what ends a file."""
        await self._arrived.wait()
        async for chunk in typed(self._stdin):
            await write(self.descriptor, chunk)

    async def resize(self, size: Resize) -> None:
        """Give the terminal a new size, which the kernel tells the command."""
        await self._arrived.wait()
        termios.tcsetwinsize(self.descriptor, (size.rows, size.columns))
