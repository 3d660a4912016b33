"""The streams of a command without a terminal: three pipes."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress

from claw_core.descriptors import Owned, Pump, feed
from claw_core.local.setup import Setup
from claw_core.model import IO, Resize

PIPE_SIZE = 1 << 20
"""Bytes that a stream may hold, where the kernel allows it."""


class Pipes:
    """Both ends of three pipes.

    Args:
        setup: whose command it is.
        io: what is at the host's ends.
        ours: closes the host's ends.
        theirs: closes the command's ends.

    Attributes:
        passed: what goes to the instance.
        pumps: what carries the output.
    """

    def __init__(self, setup: Setup, io: IO, ours: ExitStack, theirs: ExitStack) -> None:
        stdin, self._feeding = _pipe(setup, theirs, ours, host_writes=True)
        stdout_from, stdout = _pipe(setup, ours, theirs)
        stderr_from, stderr = _pipe(setup, ours, theirs)
        self._stdin = io.stdin
        self.passed = (stdin.number, stdout.number, stderr.number)
        self.pumps = (Pump(stdout_from.number, io.stdout), Pump(stderr_from.number, io.stderr))

    async def feed(self) -> None:
        """Carry the input, to its end."""
        await feed(self._feeding, self._stdin)

    async def resize(self, size: Resize) -> None:
        """Do nothing: pipes have no size."""


def _pipe(
    setup: Setup, reader: ExitStack, writer: ExitStack, *, host_writes: bool = False
) -> tuple[Owned, Owned]:
    """A pipe whose ends are closed by two stacks; the host's end never blocks.

    The payload may also open its end by name, as /dev/stdout.
    """
    reading, writing = os.pipe()
    reader.callback((reading_end := Owned(reading)).close)
    writer.callback((writing_end := Owned(writing)).close)
    with suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    if setup.become:
        os.fchown(writing, setup.uid, setup.gid)
    os.set_blocking(writing if host_writes else reading, False)
    return reading_end, writing_end
