"""`claw_core.run`: one command in an instance of its own, for programs without asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

from claw_core import events
from claw_core.config.config import Config
from claw_core.router import Result, Router


def run(
    argv: Sequence[str],
    *,
    state: Path | None = None,
    config: Config | None = None,
    observers: Iterable[object] = (),
    listener: events.Listener = events.ignore,
    stdin: bytes | AsyncIterator[bytes] | None = None,
    **options: Any,
) -> Result:
    """Run a command to its end and return its result when its instance is gone.

    Works in any thread, and inside a running event loop (which it blocks meanwhile). Ctrl-C tears
    the instance down before `KeyboardInterrupt` reaches the caller.

    Args:
        argv: program and arguments.
        state: as in `Router.open`.
        config: as in `Router.open`.
        observers: as in `Router.open`.
        listener: as in `Router.open`; called in another thread.
        stdin: what the command reads.
        **options: everything that `Router.run` takes.

    Raises:
        ClawError: as `Router.run`.
    """

    async def once() -> Result:
        async with Router.open(
            state=state, config=config, observers=observers, listener=listener
        ) as router:
            return await router.run(argv, stdin=stdin, **options)

    finished: concurrent.futures.Future[Result] = concurrent.futures.Future()
    started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Result]]]
    started = concurrent.futures.Future()

    async def main() -> Result:
        task = asyncio.create_task(once())
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    def work() -> None:
        # A loop of its own in a thread of its own: asyncio.run in the main thread would take over
        # the caller's Ctrl-C, and cannot run inside a running loop at all.
        try:
            finished.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            finished.set_exception(error)

    thread = threading.Thread(target=work, name="claw-run")
    thread.start()
    try:
        return finished.result()
    except KeyboardInterrupt:
        loop, task = started.result()
        if not finished.done():
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        _join(thread)


def _join(thread: threading.Thread) -> None:
    """Wait for the teardown, through any number of Ctrl-C."""
    interrupted: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
