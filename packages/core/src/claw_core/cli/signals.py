"""The signal ladder of the command line: graceful, impatient, hand over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn

from claw_core.cli.render import failures, leave, say
from claw_core.errors import ClawError

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TEARING_DOWN: Final = "still tearing down, without a snapshot; once more leaves it to the warden"
_open: list[Callable[[], None]] = []
"""What must be undone even by a claw that exits at once."""


class Ladder:
    """What has arrived so far.

    The first signal cancels the run, which then tears its instance down. The second skips what can
    be skipped, a snapshot, and says what is still going on. The third leaves the teardown to the
    warden: claw exits at once, which closes the lease and the lifeline.
    """

    def __init__(self, task: asyncio.Task[int], waiting: str) -> None:
        self._task = task
        self._waiting = waiting
        self.received: list[int] = []

    def take(self, number: int) -> None:
        """Take one signal."""
        self.received.append(number)
        if len(self.received) == 1:
            self._task.cancel()
        elif len(self.received) == 2:
            self._task.cancel()
            say(self._waiting)
        else:
            for undo in reversed(_open):
                undo()
            os._exit(self.exit_code)  # a clean-up handler could block; the warden needs none

    @property
    def exit_code(self) -> int:
        """128 + the first signal, as a shell reports it."""
        return 128 + self.received[0]


@contextlib.contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Undo something at the end of the block, also where the last signal ends claw within it."""
    _open.append(undo)
    try:
        yield
    finally:
        _open.remove(undo)
        undo()


def end_with(work: Coroutine[Any, Any, int], waiting: str = TEARING_DOWN) -> NoReturn:
    """Run a command of the command line to its end, and end with its exit code.

    Args:
        work: gives the exit code; the first signal that came before it decides instead.
        waiting: what the second signal is answered with.
    """
    try:
        code = asyncio.run(_watched(work, waiting))
    except (ClawError, BaseExceptionGroup) as error:
        leave(error)
    sys.stdout.flush()
    sys.exit(code)


async def _watched(work: Coroutine[Any, Any, int], waiting: str) -> int:
    task = asyncio.create_task(work)
    with _ladder(task, waiting) as steps:
        try:
            return await task
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            if not steps.received:
                raise
            for failure in failures(error):
                say(str(failure))
            return steps.exit_code


@contextlib.contextmanager
def _ladder(task: asyncio.Task[int], waiting: str) -> Iterator[Ladder]:
    """Watch the signals for the length of the block; only the command line ever does this."""
    loop = asyncio.get_running_loop()
    steps = Ladder(task, waiting)
    for number in WATCHED:
        # A signal that the caller ignores (nohup) stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, steps.take, number)
    try:
        yield steps
    finally:
        for number in WATCHED:
            loop.remove_signal_handler(number)
