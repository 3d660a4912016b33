"""The signal ladder of the command line: graceful, impatient, hand over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from claw_core.cli.render import say

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_open: list[Callable[[], None]] = []
"""What must be undone even by a claw that exits at once."""


class Ladder:
    """What has arrived so far.

    The first signal cancels the run, which then tears its instance down. The second says what is
    still going on. The third leaves the teardown to the warden: claw exits at once, which closes
    the lease and the lifeline.
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


@contextlib.contextmanager
def ladder(
    task: asyncio.Task[int],
    waiting: str = "still tearing down; once more hands it over to the warden",
) -> Iterator[Ladder]:
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
