"""The host's side of one instance: starts its launcher, holds its lifeline, sends it work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from claw_core import failpoints, lifeline
from claw_core.descriptors import Owned, feed, readable, writable
from claw_core.errors import RuntimeFault
from claw_core.local.cgroup import Cgroup
from claw_core.local.setup import Setup
from claw_core.tasks import in_thread, persist

LAUNCHER = str(Path(__file__).with_name("launcher.py"))

_POST_SPAWN = failpoints.declare("local.post-spawn", "the launcher waits for what it shall make")


class NotLaunched(RuntimeFault):
    """The launcher could not make the instance; `errno` is what the kernel said, if it did."""

    errno: int | None = None


@attrs.define(eq=False)
class Launched:
    """A running instance; it ends when `control` closes, as the death of this process does."""

    process: asyncio.subprocess.Process
    _control: int | None

    @classmethod
    async def start(
        cls,
        setup: Setup,
        inherited: tuple[int, ...],
        group: Cgroup | None = None,
        timeout: float = 20.0,
    ) -> Self:
        """Return when the instance takes work.

        Args:
            setup: what to make.
            inherited: descriptors that the launcher holds until the instance can be found.
            group: joined before anything of the instance exists.
            timeout: seconds.

        Raises:
            NotLaunched: why not; nothing of it is left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            control = lifeline.keep(ours.detach())
            document, writing = os.pipe()
            told = Owned(writing)
            passed = (theirs.fileno(), document, *inherited)
            started: list[asyncio.subprocess.Process] = []
            try:
                # Not cut short: a half-started process could neither be ended nor be waited for.
                await persist(_spawn(setup.name, passed, started))
            except BaseException:
                lifeline.close(control)
                told.close()
                for process in started:
                    await persist(cls(process, None).end())
                raise
            finally:
                os.close(document)
        (process,) = started
        launched = cls(process, control)
        try:
            # The launcher makes nothing before it has read what to make.
            failpoints.hit(_POST_SPAWN)
            if group is not None:
                await in_thread(group.add, process.pid)
            os.set_blocking(writing, False)
            await feed(told, _once(setup.encode()))
            await launched._ready(timeout)
        except BaseException:
            told.close()
            await persist(launched.end())
            raise
        return launched

    async def _ready(self, timeout: float) -> None:
        assert self._control is not None
        try:
            async with asyncio.timeout(timeout):
                await readable(self._control)
                answer = os.read(self._control, 1 << 16)
        except TimeoutError:
            raise NotLaunched(f"the launcher was not ready within {timeout:g} s") from None
        except ConnectionResetError:
            answer = b""
        if not answer:
            assert self.process.stderr is not None
            text = (await self.process.stderr.read()).decode(errors="replace").strip()
            raise NotLaunched(text.rpartition("\n")[2] or "the launcher ended at once")
        message: dict[str, Any] = json.loads(answer)
        if "error" in message:
            error = NotLaunched(message["error"], remedy=message.get("remedy"))
            error.errno = message.get("errno")
            raise error

    async def send(self, request: dict[str, Any], streams: Sequence[int], leash: int) -> None:
        """Hand a command over; the descriptors are duplicated, the caller closes its own.

        Raises:
            RuntimeFault: the instance is gone.
        """
        if self._control is None:
            raise RuntimeFault("the instance has been ended")
        document = _in_memory(json.dumps(request).encode())
        try:
            while not _sent(self._control, [document, *streams, leash]):
                await writable(self._control)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeFault("the instance has ended by itself") from error
        finally:
            os.close(document)

    async def end(self, timeout: float = 10.0) -> None:
        """Close the lifeline and return when the launcher is gone.

        Raises:
            RuntimeFault: it does not end; teardown goes on by name.
        """
        if self._control is not None:
            lifeline.close(self._control)
            self._control = None
        try:
            async with asyncio.timeout(timeout):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        assert self.process.stderr is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.process.stderr.read()  # its transport closes at its end, and only then


async def _spawn(
    name: str, passed: tuple[int, ...], started: list[asyncio.subprocess.Process]
) -> None:
    """Start a launcher, and remember it."""
    started.append(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", LAUNCHER, name, *map(str, passed)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=passed,
            start_new_session=True,
        )
    )


def _sent(control: int, descriptors: list[int]) -> bool:
    """Send a request, unless that would block."""
    # Not a duplicate: a fork of another thread would keep the lifeline open for ever.
    channel = socket.socket(fileno=control)
    try:
        channel.setblocking(False)
        return socket.send_fds(channel, [b"run"], descriptors) > 0
    except BlockingIOError:
        return False
    finally:
        channel.detach()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _in_memory(data: bytes) -> int:
    """A file without a name that holds the data: no argument, no environment, no disk."""
    descriptor = os.memfd_create("claw", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
