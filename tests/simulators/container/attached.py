"""The streams and signals of `run`, `exec` and `start -a` while the guest's process runs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from simulators.container import xpc
from simulators.container.errors import Exit, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simulators.container.call import Call

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
        truncated = [one for one in call.faults("output") if one["action"] == "truncate"]
        self._held = {one.get("stream", 1): b"" for one in truncated}
        if interactive:
            with contextlib.suppress(OSError):  # it is closed
                os.set_blocking(0, False)  # of the open file, which others may have, too
            read, self._feed = os.pipe()
            self.theirs = (read, None, None)
        if not detach:
            (out, out_w), (err, err_w) = os.pipe(), os.pipe()
            self._outputs = {out: 1, err: 2}
            self.theirs = (self.theirs[0], out_w, err_w)

    def start(self, name: str, process: str) -> int | None:
        """Start a process, and pass streams and signals on until it has ended.

        Returns:
            its exit code; None at once, if nobody is to follow it.

        Raises:
            Drained: the process has ended, and its output could not be passed on in time.
            Failure: the server has died, or the container's helper.
        """
        # Asked before it starts, however soon it ends; nobody reads an answer that comes too late.
        answer = xpc.send(self.call, "wait", name, process) if self._outputs else None
        xpc.ask(self.call, "start", name, process)
        for descriptor in self.theirs:  # the server has them now
            if descriptor is not None:
                os.close(descriptor)
        return None if answer is None else self._follow(name, process, answer)

    def _follow(self, name: str, process: str, waiting: int) -> int:
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        for forwarded in _FORWARDED:
            signal.signal(forwarded, lambda *_: None)
        self.call.point("before wait")
        answer: int | None = waiting
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
                    code, answer = int(xpc.receive(self.call, answer)), None
                    limit = time.monotonic() + self.call.mac.knob("drain_seconds")
                    self.call.point("after wait")
                elif descriptor == woken:
                    for number in os.read(woken, 1 << 10):
                        self._signalled(number, name, process)
                else:
                    self._move(descriptor)
        for target, data in self._held.items():
            _written(target, data[: len(data) // 2])
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
            target, data = self._outputs[descriptor], os.read(descriptor, _PIPE_BUF)
            if target in self._held:
                self._held[target] += data
                written = len(data)
            else:
                written = _written(target, data)
            if not written:
                self._close(descriptor)
        elif descriptor == 0 or descriptor == self._feed:
            self._move_input()

    def _close(self, descriptor: int) -> None:
        os.close(descriptor)
        del self._outputs[descriptor]

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


def _written(target: int, data: bytes) -> int:
    """Write, and return how much; nothing where nobody reads."""
    try:
        return os.write(target, data) if data else 0
    except OSError:
        return 0
