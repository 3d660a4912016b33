"""Ends a command by force, from inside of its container: a signal to its call would not arrive."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

from claw_core.errors import ClawError, RuntimeFault, SpentInstance
from claw_core.guest import KILLER
from claw_core.streaming import Streamed
from claw_runtime_apple.errors import refused
from claw_runtime_apple.place import Place
from claw_runtime_apple.told import Told

Call: TypeAlias = asyncio.Task[Streamed | None]
"""The call that a command hangs on; None where it had to be cut off after the command's end."""
MARKER: Final = "CLAW_COMMAND"
"""Variable in the environment of every command: by it its descendants are found."""


async def end(place: Place, told: Told, call: Call, cause: BaseException) -> None:
    """End a command, verifiably; nothing is done where it has ended or was never started.

    Args:
        place: where it runs.
        told: what was told about it.
        call: what it hangs on.
        cause: why it is ended.

    Raises:
        SpentInstance: that is not possible.
    """
    why = None if told.ended.is_set() else await _left(place, told, call)
    if why is not None:
        before = f"{cause.message}; " if isinstance(cause, ClawError) else ""
        raise SpentInstance(
            f"{before}the command could not be ended ({why})",
            remedy="leave the session: its teardown removes the virtual machine",
        ) from cause


async def _left(place: Place, told: Told, call: Call) -> str | None:
    """End a command by force; return why it may run on all the same."""
    try:
        async with asyncio.timeout(place.patience):
            # A call that is under way may start the command at any moment.
            await begun(told, call)
            if not told.started.done() and _never(call):
                return None
            async with place.killing:
                await kill(place, told)
            await asyncio.wait({call})
    except TimeoutError:
        return "it took too long"
    except RuntimeFault as error:
        return error.message
    return None if told.started.done() else "whether it has started is unknown"


async def begun(told: Told, call: Call, timeout: float | None = None) -> bool:
    """Wait until the command says that it starts, or its call ends; return if in time."""
    either: set[asyncio.Future[Any]] = {call, told.started}
    done, _ = await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


async def kill(place: Place, told: Told) -> None:
    """Kill a command with its descendants, and see that none is left.

    Raises:
        RuntimeFault: one is.
    """
    # Where the keeper is the first process, all that is seen is the container's own.
    alone = "1" if place.keeper == "1" and place.running == {told.token} else ""
    # Its shell has the token in its environment from the start, its descendants in `MARKER`.
    if not await place.inside(KILLER, place.keeper, told.token, told.group, alone):
        raise RuntimeFault("its processes do not end")


def _never(call: Call) -> bool:
    """Whether a call that has ended for sure did not start the command."""
    if call.cancelled():
        return False
    if call.exception() is not None:
        return isinstance(call.exception(), RuntimeFault)  # it could not even be made
    done = call.result()
    return done is not None and refused(done.code, done.errors)
