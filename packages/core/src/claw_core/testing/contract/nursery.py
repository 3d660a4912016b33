"""Processes in which runtimes are tried: made in milliseconds, watched, and ended by force.

A process that has core loaded forks one child at a time. Parent, nursery and child speak in lines
of JSON over one socket: the parent sends a job, the child what happens in it, the nursery its end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from claw_core.testing.contract.case import Case
from claw_core.testing.contract.verdict import Broken


class NurseryGone(Exception):
    """The nursery has died, which no runtime can bring about by fair means."""


@attrs.frozen
class Job:
    """What a child does.

    Attributes:
        work: `module:function` of an async function that takes a `Stage`.
        case: the runtime.
        stop: the moment at which the child kills itself, such as `enter prepare`; None is never.
        pause: the moment at which it stops, as by SIGSTOP, and stays as it is.
        elsewhere: whether to run in an environment and a directory that are not the caller's.
        arguments: further arguments of the function; JSON.
    """

    work: str
    case: Case
    stop: str | None = None
    pause: str | None = None
    elsewhere: bool = False
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    def to_line(self) -> bytes:
        """What `Child` reads, with the environment of this process."""
        value = {
            "work": self.work,
            "case": self.case.to_json(),
            "stop": self.stop,
            "pause": self.pause,
            "elsewhere": self.elsewhere,
            "arguments": dict(self.arguments),
            "path": [str(Path(entry).resolve()) for entry in sys.path],
            "environ": _minimal(self.case) if self.elsewhere else dict(os.environ),
        }
        return json.dumps(value).encode() + b"\n"


@attrs.define(eq=False)
class Child:
    """A child at work.

    Attributes:
        events: what it said so far.
        code: how it ended, as `subprocess` gives it; None while it runs.
    """

    pid: int
    _nursery: Nursery
    events: list[dict[str, Any]] = attrs.field(factory=list)
    code: int | None = None

    @property
    def finished(self) -> bool:
        """Whether it came to the end of its work."""
        return any("found" in event for event in self.events)

    @property
    def found(self) -> Broken | None:
        """What it found broken."""
        found = next((event["found"] for event in self.events if event.get("found")), None)
        return Broken(**found) if found else None

    def said(self, word: str) -> list[str]:
        """What follows a word in the moments that it told of."""
        moments = [str(event.get("at", "")).partition(" ") for event in self.events]
        return [rest for first, _, rest in moments if first == word]

    @property
    def hook(self) -> str | None:
        """The hook that it is, or was, inside of."""
        inside: list[str] = []
        for word, _, name in (str(event.get("at", "")).partition(" ") for event in self.events):
            if word == "enter":
                inside.append(name)
            elif word == "leave" and name in inside:
                inside.remove(name)
        return inside[-1] if inside else None

    def until(self, moment: str | None, seconds: float) -> bool:
        """Wait for a moment, such as `enter prepare`, or for its end; False when it is too late."""
        limit = time.monotonic() + seconds
        while self.code is None:
            if moment is not None and any(event.get("at") == moment for event in self.events):
                return True
            event = self._nursery.receive(limit - time.monotonic())
            if event is None:
                return False
            if "ended" in event:
                self.code = event["ended"]
            self.events.append(event)
        return moment is None or any(event.get("at") == moment for event in self.events)

    def end(self, seconds: float) -> bool:
        """Wait for its end, and end it by force when it is too late; say whether it was in time."""
        if self.until(None, seconds):
            return True
        self.kill()
        return False

    def kill(self) -> None:
        """End it as the kernel would, and return when it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            if not self.until(None, 30):
                raise NurseryGone("a killed process does not end")


class Nursery:
    """The parent's side; use it with `with`.

    Args:
        preload: modules that are loaded once instead of in every child.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._channel, theirs = socket.socketpair()
        self._buffer = b""
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _START),
                    *(str(theirs.fileno()), json.dumps(sys.path), *preload),
                ],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[theirs.fileno()],
            )

    def start(self, job: Job) -> Child:
        """Start a child; the one before must have ended."""
        self._channel.sendall(job.to_line())
        event = self.receive(30)
        if event is None:
            raise NurseryGone("it does not answer")
        return Child(event["pid"], self)

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next event, or None when there is none in time."""
        limit = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = max(0.0, limit - time.monotonic())
            if not select.select([self._channel], [], [], left)[0]:
                return None
            data = self._channel.recv(1 << 16)
            if not data:
                raise NurseryGone(f"it ended with {self._process.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def close(self) -> None:
        """End it and its child."""
        self._channel.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    "from claw_core.testing.contract import nursery;"
    "nursery.serve(int(sys.argv[1]), sys.argv[3:])"
)


def serve(descriptor: int, preload: Sequence[str]) -> None:
    """The nursery's side: fork a child per line, and end with the parent."""
    from claw_core.testing.contract import actor  # only here: it loads all that children need

    for module in preload:
        importlib.import_module(module)
    channel = socket.socket(fileno=descriptor)
    waking, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's concern
    while line := _line(channel):
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        pid = os.fork()
        if not pid:
            os.setsid()  # who signals a whole process group means its own, and hits only itself
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            waking.close()
            woken.close()
            actor.act(channel, json.loads(line))
        channel.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        while True:
            readable = select.select([channel, waking], [], [])[0]
            if channel in readable:  # the parent is gone: it speaks only when the child has ended
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            waking.recv(1 << 12)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
        code = os.waitstatus_to_exitcode(status)
        channel.sendall(json.dumps({"ended": code}).encode() + b"\n")


def _line(channel: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = channel.recv(1 << 16)
        if not more:
            return b""
        data += more
    return data


def _minimal(case: Case) -> dict[str, str]:
    """An environment that has nothing in common with the owner's but where programs are."""
    home = case.directory / "elsewhere"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}
