"""Runs one command in a launched instance: streams, leash, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

from claw_core.errors import ConfigError, RuntimeFault, SpentInstance
from claw_core.local.descriptors import Pump, feed
from claw_core.local.launch import Launched
from claw_core.local.setup import Setup
from claw_core.model import IO, Control, Exit, Signal
from claw_core.tasks import persist

PIPE_SIZE = 1 << 20
"""Bytes that a stream may hold, where the kernel allows it."""
LINGER = 0.1
"""Seconds for which a stream that others still hold open may be silent after the command's end."""
END_TIMEOUT = 5.0
"""Seconds that a supervisor has to end a command's processes."""

_NOT_EXECUTABLE = {
    errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ELOOP, errno.ETXTBSY,
    errno.ELIBBAD,
}  # fmt: skip


async def run(launched: Launched, setup: Setup, request: dict[str, Any], io: IO) -> dict[str, Any]:
    """Run a request to its end, and return the supervisor's report.

    When cancelled, every process of the command is ended before this returns.

    Raises:
        SpentInstance: nobody can tell how the command ended, or it cannot be ended.
        RuntimeFault: the instance is gone.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        stdin, feeding = _pipe(setup)
        stdout_from, stdout = _pipe(setup)
        stderr_from, stderr = _pipe(setup)
        for descriptor in (stdin, stdout, stderr):
            theirs.callback(os.close, descriptor)
        for descriptor in (stdout_from, stderr_from):
            ours.callback(os.close, descriptor)
        for descriptor in (feeding, stdout_from, stderr_from):
            os.set_blocking(descriptor, False)
        leash, end = socket.socketpair()
        ours.enter_context(leash)
        theirs.enter_context(end)
        leash.setblocking(False)
        feeder = asyncio.create_task(feed(feeding, io.stdin))
        try:
            await launched.send(request, (stdin, stdout, stderr), end.fileno())
        except BaseException:
            await _stop(feeder)
            raise
        theirs.close()  # or the ends of the streams would never be seen
        pumps = [Pump(stdout_from, io.stdout), Pump(stderr_from, io.stderr)]
        tasks = [asyncio.create_task(pump.run()) for pump in pumps]
        others = [feeder]
        if io.control is not None:
            others.append(asyncio.create_task(_control(leash, io.control)))
        verdict = asyncio.create_task(_report(leash))
        try:
            await _until_done(verdict, [*tasks, *others])
            await _drain(pumps, tasks)
            report = verdict.result()
        except BaseException:
            await persist(_end(leash, verdict))
            raise
        finally:
            for task in (*tasks, *others):
                await _stop(task)
    if report is None:
        raise SpentInstance(
            "the supervisor of the command has vanished, so how the command ended is unknown",
            phase="execute",
            remedy="run it again in a new instance",
        )
    return report


def outcome(report: dict[str, Any], argv: tuple[str, ...], workdir: str) -> Exit:
    """What a report means for the caller.

    Raises:
        ConfigError: the arguments and the environment are larger than the kernel allows.
        RuntimeFault: the command was not started for another reason than itself.
    """
    if "ended" in report:
        return Exit.from_wait(report["ended"])
    number, stage, detail = report["failed"], report["stage"], report["detail"]
    program = argv[0]
    if stage == "workdir":
        raise RuntimeFault(
            f"cannot start in {workdir!r}: {os.strerror(number)}",
            phase="execute",
            remedy="create the directory first, or name another one",
        )
    if stage != "run":
        raise RuntimeFault(f"cannot start the command ({stage}): {detail}", phase="execute")
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return Exit(127, reason=f"{program}: command not found in the instance")
    if number in _NOT_EXECUTABLE:
        return Exit(126, reason=f"{program}: cannot be executed: {os.strerror(number)}")
    if number == errno.E2BIG:
        raise ConfigError(
            "the arguments and the environment are larger than the kernel allows",
            phase="execute",
            remedy="pass large data by standard input or by upload",
        )
    raise RuntimeFault(f"cannot run {program}: {detail}", phase="execute")


async def _until_done(
    verdict: asyncio.Task[dict[str, Any] | None], others: list[asyncio.Task[None]]
) -> None:
    """Wait for the verdict; a stream that fails meanwhile is the caller's failure."""
    pending: set[asyncio.Task[Any]] = {verdict, *others}
    while not verdict.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not verdict:
                task.result()


async def _drain(pumps: list[Pump], tasks: list[asyncio.Task[None]]) -> None:
    """Deliver what was written before the end; do not wait for those who were left behind."""
    while not all(task.done() for task in tasks):
        before = [pump.moved for pump in pumps]
        await asyncio.wait(tasks, timeout=LINGER, return_when=asyncio.ALL_COMPLETED)
        quiet = before == [pump.moved for pump in pumps]
        if quiet and not any(pump.busy for pump in pumps):
            break
    for task in tasks:
        if task.done():
            task.result()


async def _report(leash: socket.socket) -> dict[str, Any] | None:
    """The first line that comes up the leash; None when it closes without one."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\n" not in data:
        try:
            chunk = await loop.sock_recv(leash, 1 << 16)
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        data += chunk
    report: dict[str, Any] = json.loads(data.split(b"\n")[0])
    return report


async def _end(leash: socket.socket, verdict: asyncio.Task[dict[str, Any] | None]) -> None:
    """Let the supervisor end everything, and return when it has."""
    with contextlib.suppress(OSError):
        leash.shutdown(socket.SHUT_WR)
    done, _ = await asyncio.wait([verdict], timeout=END_TIMEOUT)
    if not done:
        await _stop(verdict)
        raise SpentInstance(
            f"the processes of the command did not end within {END_TIMEOUT:g} s",
            phase="execute",
            remedy="leave the session; its teardown ends them",
        )


async def _control(leash: socket.socket, control: AsyncIterator[Control]) -> None:
    async for message in control:
        if isinstance(message, Signal):
            leash.send(bytes([message.number]))


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # its failure has been raised already, or came after the end


def _pipe(setup: Setup) -> tuple[int, int]:
    """A pipe that the payload may also open by name, as /dev/stdout."""
    import fcntl

    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    if setup.become:
        os.fchown(writing, setup.uid, setup.gid)
    return reading, writing
