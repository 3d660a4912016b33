"""The owner's half of the warden: a tiny process that reaps as soon as the owner is dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from claw_core import failpoints, lifeline, waiter
from claw_core.errors import WardenUnavailable

_ALLOWED: Final = re.compile(
    r"HOME|PATH|PYTHONPATH|USER|LOGNAME|TMPDIR|TZ|LANG|LC_.*|CLAW_.*|XDG_.*"
    r"|CONTAINER_.*|DOCKER_.*|TART_.*"
)
_SECRET: Final = re.compile(r"PASSW|SECRET|TOKEN|KEY|AUTH|CREDENTIAL", re.IGNORECASE)

_SPAWNED = failpoints.declare("warden.spawned", "the waiter's process exists")
_READY = failpoints.declare("warden.ready", "the waiter has its lifeline and is deaf to signals")


def environment(source: Mapping[str, str]) -> dict[str, str]:
    """Keep what reaping needs of an environment: the rest, and what looks secret, stays out.

    The waiter outlives its owner, and any process of the user can read its environment.
    """
    return {
        name: value
        for name, value in source.items()
        if _ALLOWED.fullmatch(name) and not _SECRET.search(name)
    }


@attrs.define(eq=False)
class Warden:
    """Sees to it that dead owners' instances are reaped; one per owner process. Use `start`.

    In a forked child it is inert.
    """

    state: Path
    timeout: float
    _process: subprocess.Popen[bytes] | None = None
    _lifeline: int | None = None
    _owner: int = attrs.field(factory=os.getpid)
    _starting: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @classmethod
    async def start(cls, state: Path, timeout: float = 5.0) -> Warden:
        """Return when the warden is watching this process.

        Args:
            state: the state directory.
            timeout: seconds that it has to get ready.

        Raises:
            WardenUnavailable: it is not watching; nothing of it is left.
        """
        warden = cls(state.absolute(), timeout)
        await warden.ensure()
        return warden

    def alive(self) -> bool:
        """Whether the warden's process is running."""
        return self._mine() and self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the warden, while it runs."""
        return self._process.pid if self._process is not None and self.alive() else None

    def request_reap(self) -> None:
        """Let the warden reap now what other, dead owners left; never waits."""
        self._send(b"r")

    async def ensure(self) -> None:
        """Start the warden again if it has died.

        Raises:
            WardenUnavailable: it cannot be started.
        """
        async with self._starting:
            if not self._mine():
                raise WardenUnavailable("a forked process has no warden")
            if self.alive():
                return
            self._hang_up()
            try:
                await self._spawn()
            except BaseException:
                await self._end()
                raise

    async def close(self) -> None:
        """End the warden without a reap, since nothing is left; return when it has ended."""
        self._send(b"q")
        await self._end()

    def hand_over(self) -> None:
        """Let it reap in the background as if this process had died; returns at once."""
        self._hang_up()
        process, self._process = self._process, None
        if process is not None and self._mine():
            # It goes on as a process that is no child of ours; what was our child ends, and a
            # thread waits for that, because nothing else here will.
            threading.Thread(target=process.wait, daemon=True).start()

    def _mine(self) -> bool:
        return self._owner == os.getpid()

    def _send(self, command: bytes) -> None:
        if self._mine() and self._lifeline is not None:
            # Broken: it has died, and `ensure` starts another. Full: plenty is asked for already.
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self._lifeline, command)

    def _hang_up(self) -> None:
        if self._mine() and self._lifeline is not None:
            lifeline.close(self._lifeline)
        self._lifeline = None

    async def _spawn(self) -> None:
        reading, self._lifeline = lifeline.pipe()
        os.set_blocking(self._lifeline, False)
        answer, answering = os.pipe()
        try:
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at exec, in about 1 ms
                    [
                        sys.executable, "-I", "-S", waiter.__file__,
                        str(self.state), str(Path(__file__).parents[1]), str(self._owner),
                    ],
                    stdin=reading,
                    stdout=answering,
                    stderr=answering,
                    env=environment(os.environ),
                    cwd="/",
                    start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(reading)
                os.close(answering)
            failpoints.hit(_SPAWNED)
            text = await _first(answer, self.timeout)
        except OSError as error:
            raise _unavailable(f"cannot run {sys.executable}: {error.strerror}") from error
        finally:
            os.close(answer)
        if not text.startswith(waiter.READY):
            detail = text.decode(errors="replace").strip().rpartition("\n")[2]
            raise _unavailable(detail or "it ended at once")
        failpoints.hit(_READY)

    async def _end(self) -> None:
        """Hang up, and return when the process has ended and been waited for."""
        self._hang_up()
        process = self._process
        if process is None or not self._mine():
            return
        cancelled: asyncio.CancelledError | None = None
        until = time.monotonic() + self.timeout
        while process.poll() is None:
            if time.monotonic() > until:
                process.kill()
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError as error:  # it ends in a moment: leave no zombie
                cancelled = error
        self._process = None
        if cancelled is not None:
            raise cancelled


async def _first(descriptor: int, timeout: float) -> bytes:
    """Return the first bytes of a pipe, without blocking the loop."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def notice() -> None:
        loop.remove_reader(descriptor)
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, notice)
    try:
        async with asyncio.timeout(timeout):
            await readable
    except TimeoutError:
        raise _unavailable(f"it was not ready within {timeout:g} s") from None
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 4096)


def _unavailable(reason: str) -> WardenUnavailable:
    return WardenUnavailable(
        f"the warden cannot be started ({reason}), so a crash would leak what is about to start",
        remedy="see that this Python interpreter can be run as a program",
    )
