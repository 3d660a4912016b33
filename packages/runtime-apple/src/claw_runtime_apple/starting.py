"""Brings a container to life by a call that it hangs on: when claw dies, the container ends.

The call stays attached. Its first process reads the call's standard input, a pipe whose other end
only this process has, not even a forked child of it. When that closes, however it does, the first
process ends, and so does the virtual machine, which the service then removes, unless it is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self

import attrs

from claw_core import lifeline
from claw_core.errors import RuntimeFault
from claw_core.streaming import TAIL, end
from claw_core.tasks import persist, stop
from claw_runtime_apple import listing
from claw_runtime_apple.cli import Cli, document
from claw_runtime_apple.errors import ContainerSilent, failure

STARTS: Final = 2
"""Virtual machines that this process starts at a time: the service starts one after the other."""
START_TIMEOUT: Final = 240.0
"""Seconds that a container has to start, an image that was never unpacked included."""
FAREWELL: Final = 2.0
"""Seconds that a call has to end after its container has."""
STOP_TIMEOUT: Final = 20.0
"""Seconds that a container has to stop."""

# By loop, as what waits belongs to one; and for the whole process, whatever runtimes it has.
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


@contextlib.asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for one of `STARTS` turns."""
    loop = asyncio.get_running_loop()
    async with _turns.setdefault(loop, asyncio.Semaphore(STARTS)):
        yield


@attrs.define(eq=False)
class Held:
    """A container that lives as long as this process holds it, or is being started."""

    _process: asyncio.subprocess.Process
    _input: int
    _keeper: asyncio.Future[str]
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    @classmethod
    async def begin(cls, argv: Sequence[str], token: str) -> Self:
        """Make the call, and return at once.

        Args:
            argv: the call.
            token: what the container's first process says when it runs.

        Raises:
            RuntimeFault: it cannot be made.
        """
        reading, writing = lifeline.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=reading,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException as error:
            lifeline.close(writing)
            if isinstance(error, OSError):
                raise RuntimeFault(f"cannot run {argv[0]}: {error.strerror}") from error
            raise
        finally:
            os.close(reading)
        held = cls(process, writing, asyncio.get_running_loop().create_future())
        held._tasks.append(asyncio.create_task(held._listen(token)))
        return held

    async def keeper(self) -> str:
        """Return, when the container runs, the pid that its first process has inside.

        Raises:
            ContainerSilent: it does not start in time.
            RuntimeFault: it does not start at all, or ends at once.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await asyncio.shield(self._keeper)
        except TimeoutError:
            raise ContainerSilent(
                f"the container did not start within {START_TIMEOUT:g} s",
                remedy="see `container system logs`; another guest may hang",
            ) from None

    def release(self) -> None:
        """Let the container end."""
        descriptor, self._input = self._input, -1  # its number may be somebody else's by then
        lifeline.close(descriptor)

    async def end(self) -> None:
        """Let the container end, and see that the call has."""
        self.release()
        await persist(self._farewell())

    async def _farewell(self) -> None:
        await asyncio.wait(self._tasks, timeout=FAREWELL)
        await end(self._process)
        await stop(self._tasks)

    async def _listen(self, token: str) -> None:
        """Take all that the call writes, so that nothing of it is held up."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors, said = bytearray(), bytearray()
        drain = asyncio.create_task(_tail(self._process.stderr, errors))
        try:
            while chunk := await self._process.stdout.read(1 << 16):
                said += chunk
                for line in said.decode(errors="replace").split("\n")[:-1]:
                    if line.startswith(f"{token} ") and not self._keeper.done():
                        self._keeper.set_result(line.rpartition(" ")[2])
                del said[:-TAIL]
            await drain
            if not self._keeper.done():
                self._keeper.set_exception(
                    failure(await self._process.wait(), bytes(errors), "run")
                )
                self._keeper.exception()  # nobody may be waiting any more
        finally:
            await persist(stop([drain]))


async def _tail(stream: asyncio.StreamReader, kept: bytearray) -> None:
    while chunk := await stream.read(1 << 16):
        kept += chunk
        del kept[:-TAIL]


async def token(cli: Cli, name: str) -> str:
    """Return what the first process of a container that was stopped says when it runs.

    Raises:
        ClawError: there is no such container.
    """
    found = document(await cli.call("inspect", name))
    try:
        return str(found[0]["configuration"]["initProcess"]["arguments"][3])
    except (IndexError, KeyError, TypeError):
        raise RuntimeFault(
            f"`container inspect` does not know {name}", remedy="see `container ls -a`"
        ) from None


async def halt(cli: Cli, name: str) -> None:
    """End all that runs in a container, which may have ended already, and keep its disk.

    Raises:
        ClawError: its virtual machine may still run.
    """
    # Nothing would be gained by asking its first process, which is deaf to every polite signal.
    await cli.call("stop", "--signal", "KILL", "--time", "1", name, timeout=STOP_TIMEOUT)
    if not await listing.vanishes(name):
        raise RuntimeFault(
            "it is stopped, and its virtual machine still runs", remedy="see `launchctl list`"
        )
