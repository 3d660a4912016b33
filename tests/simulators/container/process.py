"""One process of a guest, and the streams between it and the client that started it."""

from __future__ import annotations

import contextlib
import errno
import os
import select

from simulators.container import program
from simulators.container.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from simulators.container.stream import Interest

_CHUNK = 1 << 16


class Process:
    """A process that is to be started, runs, or has ended.

    Args:
        configuration: what it is.
        descriptors: the client's ends of its standard streams; None for what is not wanted.
        log: where its output goes as well.
    """

    def __init__(
        self, configuration: dict[str, Any], descriptors: list[int | None], log: int | None = None
    ) -> None:
        self.configuration, self.log = configuration, log
        self.input, self.out, self.err = (*descriptors, None, None, None)[:3]
        self.pid: int | None = None
        self.code: int | None = None
        self.wedged = False
        self._pending: list[bytes] = []
        self._feed: int | None = None
        self.streams: list[Stream] = []

    def start(self, root: str, *, init: bool) -> int:
        """Start it, and return its pid.

        Raises:
            Failure: why that cannot be.
        """
        pipes = [os.pipe() for _ in range(2)]
        if self.input is None:
            theirs = os.open(os.devnull, os.O_RDONLY)
        else:
            theirs, self._feed = os.pipe()
            os.set_blocking(self._feed, False)
        targets = (self.out, self.err)
        self.streams = [
            Stream(read, target, self.log) for (read, _), target in zip(pipes, targets, strict=True)
        ]
        self.out = self.err = None
        streams = (theirs, pipes[0][1], pipes[1][1])
        try:
            self.pid = program.spawn(root, self.configuration, streams, init=init)
        finally:
            for one in streams:
                os.close(one)
        self._flush()
        return self.pid

    @property
    def drained(self) -> bool:
        """Whether all its output is over."""
        return all(stream.source is None for stream in self.streams)

    def interests(self, *, output: bool) -> Iterator[Interest]:
        """What it waits for.

        Args:
            output: whether its output is passed on.
        """
        if self.input is not None:
            yield self.input, select.POLLIN, self._take
        if self.wedged and self._feed is not None:
            yield self._feed, select.POLLOUT, self._flush
        if output:
            yield from filter(None, (stream.interest() for stream in self.streams))

    def kill(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self.pid is not None and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """End all its streams."""
        for stream in self.streams:
            stream.close()
        self._end_feed()
        for name in ("input", "out", "err"):
            descriptor = getattr(self, name)
            if descriptor is not None:
                os.close(descriptor)
                setattr(self, name, None)

    def _take(self) -> None:
        """Take what the client sends, however much it is."""
        assert self.input is not None
        data = os.read(self.input, _CHUNK)
        if self.pid is None or self._feed is not None:
            self._pending.append(data)  # nothing is the end
        if not data:
            os.close(self.input)
            self.input = None
        if self.pid is not None and not self.wedged:
            self._flush()

    def _flush(self) -> None:
        """Write to the guest's standard input until it takes no more."""
        self.wedged = False
        while self._pending and self._feed is not None:
            data = self._pending[0]
            if not data:
                self._end_feed()
                return
            try:
                sent = os.write(self._feed, data)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    self.wedged = True
                else:
                    self._end_feed()
                return
            self._pending[0] = data[sent:]
            if sent == len(data):
                del self._pending[0]

    def _end_feed(self) -> None:
        if self._feed is not None:
            os.close(self._feed)
            self._feed = None
        self.wedged = False
        self._pending.clear()
