"""What there is of instances, by every witness: the service, launchd, and the process table.

A container that the service calls `stopped`, or does not show at all, may still run: then launchd
has its helper. And a call whose owner is dead may be about to create one: then it is a process.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterable
from typing import Any, Final

from claw_core.errors import RuntimeFault
from claw_core.model import INSTANCE_PREFIX
from claw_runtime_apple.cli import PATIENCE, Cli, document, run
from claw_runtime_apple.errors import ContainerSilent

HELPER: Final = "com.apple.container.container-runtime-linux."
"""Label in launchd of the process that runs a container's virtual machine, before its name."""
LIST_TIMEOUT: Final = 12.0
"""Seconds that a listing has: the service itself gives up after ten."""
GRACE: Final = 5.0
"""Seconds that calls of a dead owner, whose input has ended, have to end by themselves."""

_NAME: Final = rf"({INSTANCE_PREFIX}-[0-9a-f]{{8}}-[0-9a-f]{{12}})"


async def names(cli: Cli) -> frozenset[str]:
    """Names of everything of which there is anything.

    Raises:
        ClawError: a witness could not be asked, so nothing is known to be absent.
    """
    # One after the other, the service last: what a call creates meanwhile is seen.
    found = [*(name for _, name in await calls(cli)), *await helpers(), *await containers(cli)]
    return frozenset(found)


async def containers(cli: Cli) -> frozenset[str]:
    """Names of all containers that the service knows, in every state.

    Raises:
        ClawError: there is no whole listing.
    """
    found = document(await cli.call("ls", "-a", "--format", "json", timeout=LIST_TIMEOUT))
    if not isinstance(found, list):
        raise _odd(found)
    return frozenset(map(_name, found))


def launchd() -> str | None:
    """The command that speaks with launchd; None where there is none, and so no helper of it."""
    return shutil.which("launchctl") or shutil.which("/bin/launchctl")


async def helpers() -> frozenset[str]:
    """Names of all containers whose virtual machine launchd keeps.

    Raises:
        RuntimeFault: launchd does not say.
    """
    launchctl = launchd()
    lines = await _lines(launchctl, "list") if launchctl else []
    labels = (line.split("\t")[-1].strip() for line in lines)
    return frozenset(one.removeprefix(HELPER) for one in labels if one.startswith(HELPER))


async def vanishes(name: str) -> bool:
    """Whether a container's virtual machine ends in the time that it has for that.

    Raises:
        RuntimeFault: launchd does not say.
    """
    limit = asyncio.get_running_loop().time() + GRACE
    pause = 0.02
    while name in await helpers():
        if asyncio.get_running_loop().time() > limit:
            return False
        await asyncio.sleep(pause)  # a helper's end is no event for us
        pause = min(2 * pause, 0.5)
    return True


async def calls(cli: Cli) -> list[tuple[int, str]]:
    """Process ids of attached calls of the command, and the instance that each is about.

    Raises:
        RuntimeFault: the process table cannot be read.
    """
    # Of our own options none has a value that looks like a name, so the first name is it. Where
    # the command is a script, its interpreter comes first.
    pattern = re.compile(
        rf"\s*(\d+) (?:\S+ ){{0,2}}{re.escape(cli.program)} (?:run|start|exec) .*?{_NAME}(?: |$)"
    )
    lines = await _lines("ps", "-axww", "-o", "pid=,args=")
    return [(int(match[1]), match[2]) for match in map(pattern.match, lines) if match]


async def end_calls(cli: Cli, name: str) -> bool:
    """See that no attached call about an instance goes on; return whether one had to be killed.

    Raises:
        RuntimeFault: the process table cannot be read.
    """
    limit = asyncio.get_running_loop().time() + GRACE
    killed = False
    pause = 0.01
    while pids := [pid for pid, about in await calls(cli) if about == name]:
        # They are no children of ours, so that their end is no event.
        if asyncio.get_running_loop().time() > limit:
            killed = True
            _kill(pids)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)
    return killed


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _name(entry: Any) -> str:
    """The name in an entry: at its top, or in its configuration where that is all that has one."""
    try:
        name = entry.get("id") or entry["configuration"]["id"]
    except (AttributeError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise _odd(entry)
    return name


def _odd(value: object) -> RuntimeFault:
    return RuntimeFault(
        f"`container ls` gave no listing, but {str(value)[:200]}",
        remedy="report this to the authors of claw-runtime-apple, with `container --version`",
    )


async def _lines(*argv: str) -> list[str]:
    try:
        done = await run(argv, timeout=PATIENCE)
    except TimeoutError:
        raise ContainerSilent(f"{argv[0]} did not answer within {PATIENCE:g} s") from None
    if done.code:
        raise RuntimeFault(f"{argv[0]} failed with code {done.code}: {done.stderr.decode()[:200]}")
    return done.stdout.decode(errors="replace").splitlines()
