"""Runs one command in a launched instance: its streams, its leash, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from claw_core.descriptors import Pump, close
from claw_core.errors import ConfigError, RuntimeFault, SpentInstance
from claw_core.local.launch import Launched
from claw_core.local.leash import Leash
from claw_core.local.pipes import Pipes
from claw_core.local.setup import Setup
from claw_core.model import IO, Command, Control, Exit, Signal
from claw_core.tasks import persist, stop

if TYPE_CHECKING:
    from claw_core.local.terminal import Terminal

LINGER = 0.1
"""Seconds for which a stream that others still hold open may be silent after the command's end."""

_NOT_EXECUTABLE = {
    errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ELOOP, errno.ETXTBSY,
    errno.ELIBBAD,
}  # fmt: skip

Report = dict[str, Any]


def request_for(command: Command, workdir: str) -> dict[str, Any]:
    """Return what the instance is told to run, and where.

    Raises:
        ConfigError: no kernel could run that.
    """
    if not command.argv or not command.argv[0]:
        raise ConfigError("there is no command", remedy="name a program to run")
    for text in (*command.argv, workdir):
        if "\0" in text:
            raise ConfigError("an argument contains a NUL character, which no program can receive")
    check_environment(command.env.items())
    request: dict[str, Any] = {
        "action": "run",
        "argv": list(command.argv),
        "env": dict(command.env),
        "workdir": workdir,
    }
    if command.terminal is not None:
        request["terminal"] = [command.terminal.rows, command.terminal.columns]
    return request


def check_environment(variables: Iterable[tuple[str, str]]) -> None:
    """Refuse variables that no program can receive.

    Raises:
        ConfigError: which one; its value is not told, for it may be a secret.
    """
    for name, value in variables:
        if not name or "=" in name or "\0" in name:
            raise ConfigError(f"{name!r} cannot be the name of an environment variable")
        if "\0" in value:
            raise ConfigError(f"the environment variable {name} contains a NUL character")


async def run(launched: Launched, setup: Setup, request: dict[str, Any], io: IO) -> Report:
    """Run a request to its end, and return the supervisor's report.

    When cancelled, every process of the command is ended before this returns.

    Raises:
        SpentInstance: nobody can tell how the command ended, or it cannot be ended.
        RuntimeFault: the instance is gone.
    """
    try:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            streams: Pipes | Terminal
            if "terminal" in request:
                from claw_core.local.terminal import Terminal  # most commands have none

                streams = Terminal(io, ours, theirs)
            else:
                streams = Pipes(setup, io, ours, theirs)
            ours_end, end = socket.socketpair()
            leash = Leash(ours.enter_context(ours_end))
            theirs.enter_context(end)
            await launched.send(request, streams.passed, end.fileno())
            theirs.close()  # or the ends of the streams would never be seen
            return await _attend(leash, streams, io.control)
    finally:
        await close(io.stdin)


async def _attend(
    leash: Leash, streams: Pipes | Terminal, control: AsyncIterator[Control] | None
) -> Report:
    outputs = [asyncio.create_task(pump.run()) for pump in streams.pumps]
    others = [asyncio.create_task(streams.feed())]
    if control is not None:
        others.append(asyncio.create_task(_control(leash, streams, control)))
    verdict = asyncio.create_task(leash.line())
    try:
        await _until_done(verdict, [*outputs, *others])
        await _drain(streams.pumps, outputs)
        report = verdict.result()
        leash.release()
    except BaseException:
        await persist(leash.end(verdict))
        raise
    finally:
        await persist(stop([*outputs, *others, verdict]))
    if report is None:
        raise SpentInstance(
            "the supervisor of the command has vanished, so how the command ended is unknown",
            phase="execute",
            remedy="run it again in a new instance",
        )
    return report


def outcome(report: Report, argv: tuple[str, ...], workdir: str) -> Exit:
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
    verdict: asyncio.Task[Report | None], others: list[asyncio.Task[None]]
) -> None:
    """Wait for the verdict; a stream that fails meanwhile is the caller's failure."""
    pending: set[asyncio.Task[Any]] = {verdict, *others}
    while not verdict.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not verdict:
                task.result()


async def _drain(pumps: Sequence[Pump], tasks: list[asyncio.Task[None]]) -> None:
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


async def _control(
    leash: Leash, streams: Pipes | Terminal, control: AsyncIterator[Control]
) -> None:
    async for message in control:
        if isinstance(message, Signal):
            leash.signal(message.number)
        else:
            await streams.resize(message)
