"""A command that is spoken with while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self, TypeVar

import attrs

from claw_core.capture import Capture
from claw_core.model import Control, Resize
from claw_core.testing.contract.stage import Done, Live, until

T = TypeVar("T")


@attrs.define(eq=False)
class Talk:
    """One command; leaving the block cancels it, if it still runs.

    Attributes:
        work: the call of `execute`.
        seconds: how long an answer may take.
    """

    work: asyncio.Task[Done]
    seconds: float
    _out: Capture
    _err: Capture
    _words: asyncio.Queue[bytes | None]
    _controls: asyncio.Queue[Control | None]

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, live: Live, *argv: str, terminal: Resize | None = None
    ) -> AsyncIterator[Self]:
        """Start a command; a single word is a program of the shell."""
        out, err = Capture(), Capture()
        words: asyncio.Queue[bytes | None] = asyncio.Queue()
        controls: asyncio.Queue[Control | None] = asyncio.Queue()
        work = asyncio.create_task(
            live.run(
                *argv,
                stdin=_items(words),
                control=_items(controls),
                terminal=terminal,
                stdout=out,
                stderr=err,
            )
        )
        try:
            yield cls(work, live.runtime.seconds / 2, out, err, words, controls)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    def say(self, words: bytes | None) -> None:
        """Give it some input; None is the end of it."""
        self._words.put_nowait(words)

    def control(self, control: Control) -> None:
        """Send it a signal, or resize its terminal."""
        self._controls.put_nowait(control)

    async def hears(self, out: bytes, err: bytes = b"") -> bool:
        """Whether its output has something in it, in time; what it failed with is raised."""

        def heard() -> bool:
            return out in self._out.data and err in self._err.data

        await until(lambda: self.work.done() or heard(), self.seconds)
        if self.work.done():
            self.work.result()
        return heard()

    async def ends(self) -> bool:
        """Whether it ends, in time."""
        await asyncio.wait({self.work}, timeout=self.seconds)
        return self.work.done()

    def __str__(self) -> str:
        how = str(self.work.result().exit) if self.work.done() else "it runs"
        return f"{how}, stdout {bytes(self._out.data)[-200:]!r}, stderr {bytes(self._err.data)!r}"


async def _items(queue: asyncio.Queue[T | None]) -> AsyncIterator[T]:
    while (item := await queue.get()) is not None:
        yield item
