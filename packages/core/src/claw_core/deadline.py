"""How long a command may run, and how long it may be silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import attrs

from claw_core.errors import DeadlineExceeded


@attrs.define(eq=False)
class CommandDeadline:
    """Stops what runs inside `watch` when one of two times is over.

    Args:
        timeout: seconds from the start, or None.
        idle: seconds without output, or None; the time that a reader takes does not count.
    """

    timeout: float | None
    idle: float | None
    _last: float | None = attrs.field(init=False, default=None)
    _timer: asyncio.Timeout | None = attrs.field(init=False, default=None)
    _reading: int = attrs.field(init=False, default=0)

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Cancel the body in time.

        Raises:
            DeadlineExceeded: it was cancelled, and by which of the two times.
        """
        try:
            async with asyncio.timeout(None) as self._timer:
                if self.timeout is not None:
                    self._last = asyncio.get_running_loop().time() + self.timeout
                self._set()
                yield
        except TimeoutError:
            if self._timer is None or not self._timer.expired():
                raise
            hard = self._last is not None and self._timer.when() == self._last
            which, limit = ("timeout", self.timeout) if hard else ("idle timeout", self.idle)
            raise DeadlineExceeded(
                f"the command was stopped after its {which} of {limit:g} s", phase="execute"
            ) from None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold while output is handed on: a slow reader is no idle command."""
        if self.idle is None:
            yield
            return
        self._reading += 1
        self._set()
        try:
            yield
        finally:
            self._reading -= 1
            self._set()

    def _set(self) -> None:
        if self._timer is None or self._timer.expired():
            return
        when = self._last
        if self.idle is not None and not self._reading:
            quiet = asyncio.get_running_loop().time() + self.idle
            when = quiet if when is None else min(when, quiet)
        self._timer.reschedule(when)
