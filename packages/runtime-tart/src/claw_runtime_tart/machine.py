"""A running virtual machine, as its owner sees it: started, watched, and ended with its owner."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import attrs

from claw_core import lifeline
from claw_core.errors import RuntimeFault
from claw_core.host import Host
from claw_core.tasks import persist, stop
from claw_runtime_tart import cli
from claw_runtime_tart.cli import GuestLost, Tart

T = TypeVar("T")

GRACE: Final = 5.0
"""Seconds that a machine has to end when it is asked to, before it is killed."""
LAST_WORDS: Final = 1.0
"""Seconds that a machine has to end after its guest was lost, and to say why."""
_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")
_TAIL: Final = 4096
_REST: Final = 0.5
"""Seconds for what an ended process has said: whatever outlives it may keep its output open."""


@attrs.define(eq=False)
class Machine:
    """The process of a virtual machine; whatever ends this process ends the machine.

    Attributes:
        name: of the instance.
    """

    name: str
    _process: asyncio.subprocess.Process
    _lifeline: int
    _output: FileIO
    _said: bytearray = attrs.field(init=False, factory=bytearray)
    _ended: asyncio.Task[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ended = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls, tart: Tart, host: Host, name: str, options: Sequence[str]) -> Self:
        """Start `tart run` in a session of its own, and return at once.

        Args:
            tart: the command.
            host: of the instance, whose claims the machine holds.
            name: of the machine.
            options: of `tart run`.

        Raises:
            RuntimeFault: it cannot be started.
        """
        (lock,) = host.inherited()
        reading, writing = lifeline.pipe()
        # Not asyncio's own pipe, whose end its `wait` waits for, although others may keep it open.
        listening, speaking = os.pipe()
        output = FileIO(listening)
        numbers = ",".join(map(str, host.claimed))
        command = (tart.executable, "run", name, *options)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                *(str(GRACE), str(lock), numbers, *command),
                stdin=reading,
                stdout=speaking,
                stderr=asyncio.subprocess.STDOUT,
                env=tart.environment(),
                pass_fds=(lock, *host.claimed),
                start_new_session=True,
            )
        except BaseException as error:
            lifeline.close(writing)
            output.close()
            if isinstance(error, OSError):
                raise RuntimeFault(f"cannot start the machine: {error.strerror}") from error
            raise
        finally:
            os.close(reading)
            os.close(speaking)
        return cls(name, process, writing, output)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return not self._ended.done()

    @property
    def said(self) -> str:
        """The end of what `tart run` has printed, as one line."""
        return " ".join(self._said.decode(errors="replace").split("\n")).strip()

    async def during(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Do something that makes sense only while the machine runs.

        Args:
            work: what is done.
            what: what to say that was going on when the machine has ended.

        Raises:
            CapacityExhausted: it has ended, since the host runs too many.
            RuntimeFault: it has ended; the message has its reason, as far as Tart told one.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            try:
                await persist(_done(task))
            finally:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            raise
        if not task.done():
            task.cancel()
            await persist(_done(task))
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, GuestLost):
            await asyncio.wait({self._ended}, timeout=LAST_WORDS)  # which may tell why
        if self._ended.done() and (task.cancelled() or failure is not None):
            raise self._why(what) from failure
        return task.result()

    async def end(self) -> None:
        """Let it end, as at its owner's death, and return when its process is gone.

        A supervisor that was killed leaves it; then others must see to it.
        """
        descriptor, self._lifeline = self._lifeline, -1  # its number may be somebody else's by then
        lifeline.close(descriptor)
        await persist(self._last())

    async def _last(self) -> None:
        await asyncio.wait({self._ended}, timeout=GRACE + 5.0)
        if not self._ended.done():
            self._process.kill()
            await asyncio.wait({self._ended})

    async def _watch(self) -> int:
        listening = asyncio.create_task(self._listen())
        try:
            return await self._process.wait()
        finally:
            await asyncio.wait({listening}, timeout=_REST)
            await stop([listening])

    async def _listen(self) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), self._output
        )
        try:
            while data := await stream.read(_TAIL):
                self._said += data
                del self._said[:-_TAIL]
        finally:
            transport.close()

    def _why(self, what: str) -> RuntimeFault:
        return cli.fault(self.said, f"the virtual machine has ended {what}")


async def _done(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
