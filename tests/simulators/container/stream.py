"""Output of a guest on its way to the client that started it."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Interest = tuple[int, int, Callable[[], None]]
    """A descriptor, the events that it waits for, and what to do then."""

_CHUNK = 1 << 16


class Stream:
    """Output on its way from the guest to the client, and to the log.

    Args:
        source: what the guest writes to comes out here.
        target: the client's descriptor; None if there is no client.
        log: descriptor of the container's log.
    """

    def __init__(self, source: int, target: int | None, log: int | None) -> None:
        self.source: int | None = source
        self.target, self.log = target, log
        self.kept = b""
        self.lost = False
        os.set_blocking(source, False)
        if target is not None:
            os.set_blocking(target, False)

    def interest(self) -> Interest | None:
        """What it waits for."""
        if self.kept and self.target is not None:
            return self.target, select.POLLOUT, self.write
        if self.source is not None:
            return self.source, select.POLLIN, self.read
        return None

    def read(self) -> None:
        """Take what the guest wrote."""
        assert self.source is not None
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
        elif not self.lost:  # what the client of a lost stream does not get, the log does not
            self.kept = data
            self.write()

    def write(self) -> None:
        """Pass on what was taken, as far as the client takes it."""
        try:
            sent = len(self.kept) if self.target is None else os.write(self.target, self.kept)
        except BlockingIOError:
            return
        except OSError:
            self.kept, self.lost = b"", True
            self._drop()
            return
        if self.log is not None:
            os.write(self.log, self.kept[:sent])
        self.kept = self.kept[sent:]

    def close(self) -> None:
        """End it."""
        if self.source is not None:
            os.close(self.source)
            self.source = None
        self.kept = b""
        self._drop()

    def _drop(self) -> None:
        if self.target is not None:
            os.close(self.target)
            self.target = None
