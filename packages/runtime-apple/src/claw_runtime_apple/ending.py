"""Ends a command by force, from inside of its container: a signal to its call would not arrive."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

from claw_core.errors import ClawError, RuntimeFault, SpentInstance
from claw_core.guest import KILLER
from claw_core.streaming import Streamed
from claw_runtime_apple.place import Place
from claw_runtime_apple.told import Told

Call: TypeAlias = asyncio.Task[Streamed | None]
"""The call that a command hangs on; None where it had to be cut off after the command's end."""
MARKER: Final = "CLAW_COMMAND"
"""Variable in the environment of every command: by it its descendants are found."""


async def end(place: Place, told: Told, call: Call, cause: BaseException) -> None:
    """End a command, verifiably; nothing is done where it has ended or was never asked for.

    Args:
        place: where it runs.
        told: what was told about it.
        call: what it hangs on.
        cause: why it is ended.

    Raises:
        SpentInstance: that is not possible.
    """
    if told.ended.is_set() or _never(told, call):
        return
    try:
        async with asyncio.timeout(place.patience):
            # A call that is under way may start the command at any moment.
            await begun(told, call)
            async with place.killing:
                await kill(place, told, call)
            await asyncio.wait({call})
    except (TimeoutError, RuntimeFault) as error:
        said = error.message if isinstance(error, RuntimeFault) else "it took too long"
        before = f"{cause.message}; " if isinstance(cause, ClawError) else ""
        raise SpentInstance(
            f"{before}the command could not be ended ({said})",
            remedy="leave the session: its teardown removes the virtual machine",
        ) from cause


async def begun(told: Told, call: Call, timeout: float | None = None) -> bool:
    """Wait until the command says that it starts, or its call ends; return if in time."""
    either: set[asyncio.Future[Any]] = {call, told.started}
    done, _ = await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


async def kill(place: Place, told: Told, call: Call) -> None:
    """Kill a command with its descendants, and see that none is left.

    Raises:
        RuntimeFault: one is, or may still come.
    """
    if not told.group and (call.cancelled() or call.exception()):
        raise RuntimeFault("whether it has started is unknown")
    # Where the keeper is the first process, all that is seen is the container's own.
    alone = "1" if place.keeper == "1" and place.running == {told.token} else ""
    mark = f"{MARKER}={told.token}"
    if not await place.inside(KILLER, place.keeper, mark, told.group, alone):
        raise RuntimeFault("its processes do not end")


def _never(told: Told, call: Call) -> bool:
    """Whether the call could not even be made."""
    if told.started.done() or not call.done() or call.cancelled():
        return False
    return isinstance(call.exception(), RuntimeFault)
