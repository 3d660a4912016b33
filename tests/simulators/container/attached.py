"""The streams and signals of `run`, `exec` and `start -a` while the guest's process runs."""

from __future__ import annotations

import os
import select
import signal
import time

from simulators.container import xpc
from simulators.container.errors import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simulators.container.call import Call

PATIENCE = 3.0
"""Seconds that the rest of the output has when the process has ended."""
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
_PIPE_BUF = 4096


class Drained(Exception):
    """The rest of the output did not come in time."""


class Attached:
    """The client's side of a process's streams.

    Args:
        call: the call.
        interactive: whether there is a standard input.
        detach: whether there is no output.
    """

    def __init__(self, call: Call, *, interactive: bool, detach: bool) -> None:
        self.call = call
        self.theirs: tuple[int | None, ...] = (None, None, None)
        self._feed: int | None = None
        self._kept = b""
        self._outputs: dict[int, int] = {}
        self._stops = 0
        if interactive:
            os.set_blocking(0, False)  # of the open file, which others may have, too
            read, self._feed = os.pipe()
            self.theirs = (read, None, None)
        if not detach:
            (out, out_w), (err, err_w) = os.pipe(), os.pipe()
            self._outputs = {out: 1, err: 2}
            self.theirs = (self.theirs[0], out_w, err_w)

    def close_theirs(self) -> None:
        """Let go of what the server has now."""
        for descriptor in self.theirs:
            if descriptor is not None:
                os.close(descriptor)
        self.theirs = (None, None, None)

    def follow(self, name: str, process: str) -> int:
        """Pass streams and signals on until the process has ended, and return its exit code.

        Raises:
            Drained: the process has ended, and its output could not be passed on in time.
            Failure: the server has died, or the container's helper.
        """
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        for forwarded in _FORWARDED:
            signal.signal(forwarded, lambda *_: None)
        self.call.point("before wait")
        answer: int | None = xpc.send(self.call, "wait", name, process)
        code = 0
        limit: float | None = None
        while answer is not None or self._outputs:
            poll = select.poll()
            poll.register(woken, select.POLLIN)
            if answer is not None:
                poll.register(answer, select.POLLIN)
            self._register(poll)
            left = None if limit is None else max(0.0, limit - time.monotonic()) * 1000 + 1
            ready = poll.poll(left)
            if limit is not None and time.monotonic() >= limit:
                raise Drained
            for descriptor, _ in ready:
                if descriptor == answer:
                    code, answer = int(xpc.receive(answer)), None
                    limit = time.monotonic() + PATIENCE
                    self.call.point("after wait")
                elif descriptor == woken:
                    for number in os.read(woken, 1 << 10):
                        self._signalled(number, name, process)
                else:
                    self._move(descriptor)
        return code

    def _register(self, poll: select.poll) -> None:
        if self._feed is not None:
            poll.register(*((self._feed, select.POLLOUT) if self._kept else (0, select.POLLIN)))
        for source, target in self._outputs.items():
            test = select.poll()
            test.register(target, select.POLLOUT)
            if test.poll(0):
                poll.register(source, select.POLLIN)
            else:  # its reader is slow: wait for that, and not for more to write
                poll.register(target, select.POLLOUT)

    def _move(self, descriptor: int) -> None:
        if descriptor in self._outputs:
            data = os.read(descriptor, _PIPE_BUF)
            try:
                written = os.write(self._outputs[descriptor], data) if data else 0
            except OSError:
                written = 0
            if not written:
                os.close(descriptor)
                del self._outputs[descriptor]
        elif descriptor == 0 or descriptor == self._feed:
            self._move_input()

    def _move_input(self) -> None:
        assert self._feed is not None
        try:
            if self._kept:
                self._kept = self._kept[os.write(self._feed, self._kept[:_PIPE_BUF]) :]
            else:
                self._kept = os.read(0, 1 << 16)
                if not self._kept:
                    raise BrokenPipeError  # the end
        except BlockingIOError:
            return
        except OSError:
            os.close(self._feed)
            self._feed = None

    def _signalled(self, number: int, name: str, process: str) -> None:
        if number in {signal.SIGINT, signal.SIGTERM}:
            self._stops += 1
            if self._stops == 3:
                os.write(2, b"Received 3 SIGINT/SIGTERM's, forcefully exiting.\n")
                raise Exit(1)
        if self.call.mac.version >= (1, 0):
            what = '["error": invalidArgument: "missing signal in xpc message", "signal": %d]'
            os.write(2, b"failed to send signal: " + (what % number).encode() + b"\n")
            return
        try:
            xpc.ask(self.call, "signal_process", name, process, number)
        except Failure as error:
            os.write(2, f"failed to send signal: {error}\n".encode())
