"""Waiting that cancellation cannot cut short."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
from collections.abc import Callable, Collection, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def persist(
    work: Coroutine[Any, Any, T] | asyncio.Future[T], patience: float = math.inf
) -> T:
    """Run to the end through cancellations, which are re-raised afterwards.

    The result is lost to a cancelled caller, so work whose result must not be lost stores it.

    Args:
        work: what to run.
        patience: how often the caller may be cancelled, those before included, until the work is
            cancelled as well.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile; a failure of the work is its
            context, and no failure is ever lost: it is raised instead of the cancellation.
    """
    task = asyncio.ensure_future(work)
    caller = asyncio.current_task()
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        if caller is not None and caller.cancelling() > patience:
            task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread and wait for its end, even when cancelled meanwhile."""
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await persist(asyncio.get_running_loop().run_in_executor(None, call))


async def stop(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and return when they have ended; how they ended is for others to ask."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that nobody is told that it was not
