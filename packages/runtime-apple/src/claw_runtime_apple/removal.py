"""Removes a container for good, by ever stronger means, and believes only the listings.

What a call answers is a hint: a delete may fail although the container is gone, succeed although it
is still there, or hang because its guest does. `stop` is no means at all: the service may call
`stopped` what still runs.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from claw_core import failpoints
from claw_core.errors import ClawError, TeardownFailed
from claw_runtime_apple import listing
from claw_runtime_apple.cli import PATIENCE, Cli, run
from claw_runtime_apple.errors import ContainerError, ContainerSilent, ContainerUnavailable

DELETE_TIMEOUT: Final = 15.0
"""Seconds that a delete has."""
PAUSES: Final = (0.0, 0.2, 1.0)
"""Seconds before each attempt that is made before a helper is ended by force."""
VANISHING: Final = 2.0
"""Seconds that what was deleted has to vanish from the listings."""

_DELETED = failpoints.declare("apple.post-delete", "its deletion was asked for and answered")
_BOOTED_OUT = failpoints.declare("apple.booted-out", "launchd has ended its virtual machine")


async def remove(cli: Cli, name: str) -> None:
    """Remove a container with its virtual machine; return when no listing shows it.

    Raises:
        TeardownFailed: it is still there.
        ClawError: a listing cannot be had, so it may be.
    """
    for pause in PAUSES:
        await asyncio.sleep(pause)
        answer = await _delete(cli, name)
        if isinstance(answer, ContainerSilent | ContainerUnavailable):
            break  # it is its guest that hangs, or the service: no further attempt would help
        if await listing.end_calls(cli, name):
            continue  # a call that was killed may have created it meanwhile
        if not await _seen(cli, name, answer):
            return
    await _boot_out(name)
    answer = await _delete(cli, name)
    await listing.end_calls(cli, name)
    if where := await _seen(cli, name, None):
        raise TeardownFailed(
            f"its container is still listed by {where}" + (f"; {answer.message}" if answer else ""),
            remedy=f"container delete --force {name}; if that hangs, see `launchctl list`",
        )


async def _delete(cli: Cli, name: str) -> ClawError | None:
    """Ask for the deletion once, and return what went wrong."""
    try:
        await cli.call("delete", "--force", name, timeout=DELETE_TIMEOUT)
    except (ContainerError, ContainerSilent, ContainerUnavailable) as error:
        return error
    finally:
        failpoints.hit(_DELETED)
    return None


async def _seen(cli: Cli, name: str, answer: ClawError | None) -> str:
    """Who still shows it, when it should have vanished by now; empty where nobody does."""
    limit = asyncio.get_running_loop().time() + (VANISHING if answer is None else 0.0)
    pause = 0.02
    while True:
        where = []
        if name in await listing.helpers():
            where.append("`launchctl list`")
        if name in await listing.containers(cli):
            where.append("`container ls -a`")
        if not where or asyncio.get_running_loop().time() > limit:
            return " and ".join(where)
        # An automatic removal is under way, or a helper ends: neither is an event for us.
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)


async def _boot_out(name: str) -> None:
    """End the one helper, in whichever of launchd's domains it is."""
    user = os.getuid()
    domains = [f"gui/{user}", f"user/{user}", *(["system"] if user == 0 else [])]
    for domain in domains:
        # Where it is not, launchd says so, and the listing decides.
        await _launchctl("bootout", f"{domain}/{listing.HELPER}{name}")
    failpoints.hit(_BOOTED_OUT)


async def _launchctl(*arguments: str) -> None:
    launchctl = listing.launchd()
    if launchctl is None:
        return
    try:
        await run((launchctl, *arguments), timeout=PATIENCE)
    except TimeoutError:
        raise ContainerSilent(f"launchctl {arguments[0]} did not answer") from None
