"""A guest that takes commands: the machine that it runs in, and the way to it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol

import attrs

from claw_core.errors import RuntimeFault, SpentInstance
from claw_core.model import IO, Exit, Resize
from claw_runtime_tart.machine import Machine

DRAIN: Final = 1.0
"""Seconds of waiting for output once a command has ended: descendants may keep its output open."""
LEFT: Final = 16 << 20
"""Bytes of output that are taken then: what a command wrote is on its way in buffers, and a
descendant may write for ever."""


class Transport(Protocol):
    """How programs are run in a guest."""

    async def run(self, program: str, token: str, io: IO, terminal: Resize | None, /) -> Exit:
        """See `ssh.Connection.run`."""

    async def close(self) -> None:
        """Let go of the guest."""


@attrs.frozen(eq=False)
class Reached:
    """A guest, for programs of `guest` and for a few of our own.

    Attributes:
        machine: whose end is the end of everything in it.
        transport: how it is reached.
    """

    machine: Machine
    transport: Transport

    async def run(self, program: str, token: str, io: IO, terminal: Resize | None = None) -> Exit:
        """Run a program; see `Transport.run`.

        Raises:
            RuntimeFault: the machine has ended meanwhile, or the guest was lost.
        """
        work = self.transport.run(program, token, io, terminal)
        return await self.machine.during(work, "while the command ran")

    async def transfer(self, program: str, io: IO, what: str) -> None:
        """Run a program that must succeed; its standard error is for us.

        Args:
            program: for the guest's `sh`.
            io: its other streams.
            what: what it does, for the message.

        Raises:
            RuntimeFault: it fails; the message has what it said.
        """
        errors = bytearray()

        async def keep(data: bytes) -> None:
            errors.extend(data[: max(0, 4096 - len(errors))])

        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            ended = await self.run(program, secrets.token_hex(16), attrs.evolve(io, stderr=keep))
        except SpentInstance as error:
            if task.cancelling() > before:  # nothing that goes on in the guest is of any harm
                raise asyncio.CancelledError from error
            raise
        if ended.code:
            said = errors.decode(errors="replace").strip() or f"code {ended.code}"
            raise RuntimeFault(f"cannot {what}: {said}", remedy="check the path in the guest")

    async def ask(self, program: str, what: str) -> bytes:
        """Run a program that must succeed, and return the first 64 KiB of what it prints."""
        output = bytearray()

        async def keep(data: bytes) -> None:
            output.extend(data[: max(0, 65_536 - len(output))])

        await self.transfer(program, IO(None, keep, drop), what)
        return bytes(output)


async def drop(data: bytes) -> None:
    """Nobody asked for this output."""
