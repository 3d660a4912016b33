"""One line on a terminal that says which phase is running and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from claw_core import events
from claw_core.cli.render import say

INTERVAL = 0.1
"""Seconds between two paintings of the line."""
QUIET_FOR = 0.3
"""Seconds that a run may take to start before the line appears at all: no flicker."""


class ProgressLine:
    """A listener that paints a status line on standard error while claw, not the command, works.

    Args:
        quiet: show neither the line nor notices.
        verbose: print every phase with its duration instead of the line.
    """

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._paint = not quiet and not verbose and os.isatty(2)
        self._text = ""
        self._since = 0.0
        self._began = time.monotonic()
        self._shown = False
        self._painter: asyncio.Task[None] | None = None

    def __call__(self, event: events.Event) -> None:
        """Take one event."""
        if self._quiet and not (isinstance(event, events.Notice) and event.urgent):
            return
        match event:
            case events.Notice(text):
                self._clear()
                say(text)
            case events.PhaseStarted(runtime, instance, phase) if self._verbose:
                say(f"{runtime}: {phase} {instance}")
            case events.PhaseEnded(runtime, _, phase, seconds, error) if self._verbose:
                say(f"{runtime}: {phase} {'failed' if error else 'done'} after {seconds:.3f} s")
            case events.Progress(runtime, _, text) if self._verbose:
                say(f"{runtime}: {text}")
            case events.PhaseStarted(runtime, _, phase):
                self._show("" if phase == "execute" else f"{runtime}: {phase}")
            case events.Progress(runtime, _, text):
                self._show(f"{runtime}: {text}")
            case events.PhaseEnded():
                self._show("")

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Say nothing for the length of the block: the terminal belongs to a command."""
        self._show("")
        quiet, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = quiet

    def close(self) -> None:
        """Take the line away and stop painting."""
        if self._painter is not None:
            self._painter.cancel()
            self._painter = None
        self._clear()

    def _show(self, text: str) -> None:
        self._text, self._since = text, time.monotonic()
        if not text:
            self._clear()
        elif self._paint and self._painter is None:
            self._painter = asyncio.create_task(self._repaint())

    async def _repaint(self) -> None:
        while True:
            now = time.monotonic()
            if self._text and now - self._began > QUIET_FOR:
                width = (os.get_terminal_size(2).columns or 80) - 1
                line = f"claw: {self._text} {now - self._since:.1f} s"
                sys.stderr.write(f"\r\x1b[K{line[:width]}")
                sys.stderr.flush()
                self._shown = True
            await asyncio.sleep(INTERVAL)

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
