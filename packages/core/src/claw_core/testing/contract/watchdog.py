"""Notices from outside of the event loop that it is blocked, and by what."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Final

_BEAT: Final = 0.1


class Watchdog(threading.Thread):
    """Calls `bark` with a place in the code when the loop of the main thread stands still.

    What counts is how often this thread ran while the loop did not, so that a busy machine, where
    neither runs, is no reason to bark.

    Args:
        seconds: how long it may stand still.
        bark: gets the place, in this thread.
    """

    def __init__(self, seconds: float, bark: Callable[[str], None]) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._limit = int(seconds / _BEAT)
        self._bark = bark
        self._watched = threading.main_thread().ident
        self._missed = 0
        self._over = threading.Event()

    async def feed(self) -> None:
        """Show that the loop runs, for as long as it does."""
        while True:
            self._missed = 0
            await asyncio.sleep(_BEAT)

    def run(self) -> None:
        """Watch until `stop`."""
        while not self._over.wait(_BEAT):
            self._missed += 1
            if self._missed > self._limit:
                self._bark(self._place())
                return

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()

    def _place(self) -> str:
        """The innermost line that the main thread is at."""
        assert self._watched is not None
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented by Python
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown place"
