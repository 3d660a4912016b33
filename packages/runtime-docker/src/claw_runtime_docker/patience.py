"""Waiting for an answer that must not be lost, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from claw_core.tasks import persist

GRACE: Final = 5.0
"""Seconds that an engine still has to answer when its caller does not want to wait any more."""


async def answered(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; when cancelled, wait `GRACE` seconds more for it, and only then give it up.

    What an engine was asked for it does, whoever hears the answer. Who knows the answer can undo
    it at once; otherwise it must be fenced.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await persist(_last(task))
        raise


async def _last(task: asyncio.Future[None]) -> None:
    await asyncio.wait([task], timeout=GRACE)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # the cancellation is what is told
