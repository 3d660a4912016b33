"""Watches one command, on a leash: what comes down it are signals, its end is the end of all."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
from fcntl import ioctl
from typing import Any, Final, NoReturn

from claw_core.local import kernel
from claw_core.local.payload import Confinement, report_failure, start
from claw_core.local.processes import end_descendants

RELEASE: Final = 0
"""Comes down the leash instead of a signal: the command has ended, leave its children alone."""
_TIOCSWINSZ: Final = 0x5414


def run(confine: Confinement, descriptors: list[int]) -> NoReturn:
    """Run the command of a request, report how it ended, and end when released.

    Whatever the command leaves behind then goes to the first process. When the leash closes before
    that, every descendant is ended, and that is said.
    """
    request, *streams, leash_descriptor = descriptors
    leash = socket.socket(fileno=leash_descriptor)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    with open(request, "rb") as file:
        wanted: dict[str, Any] = json.loads(file.read())
    children, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    stage = "terminal"
    try:
        if "terminal" in wanted:
            streams = [_terminal(wanted["terminal"], *streams)]
        stage = "start"
        payload = os.fork()
    except OSError as error:
        leash.send(report_failure(error.errno or 0, stage, str(error)))
        os._exit(0)
    if payload == 0:
        start(confine, wanted, streams, leash)
    # Held until the command ends, a terminal can be left by all its processes and opened again.
    held = streams if "terminal" in wanted else _close(streams)
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    poll.register(children, select.POLLIN)
    ended = False
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == leash.fileno():
                for number in _receive(leash):
                    if number == RELEASE:
                        os._exit(0)
                    if not ended:
                        _signal(payload, number)
            else:
                os.read(children, 4096)
                status = _collect(payload)
                if status is not None:
                    ended = True
                    held = _close(held)
                    _say(leash, {"ended": status})


def _terminal(size: list[int], channel: int) -> int:
    """Make a terminal in the instance's own file tree; its other end goes to the host."""
    host, payload = os.openpty()
    ioctl(payload, _TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    with socket.socket(fileno=channel) as there:
        socket.send_fds(there, [b"\0"], [host])
    os.close(host)
    return payload


def _close(descriptors: list[int]) -> list[int]:
    """Close them, and return what is left: none."""
    for descriptor in descriptors:
        os.close(descriptor)
    return []


def _receive(leash: socket.socket) -> bytes:
    """What came down the leash; at its end, end everything and do not return."""
    try:
        numbers = leash.recv(64)
    except ConnectionResetError:
        numbers = b""
    if not numbers:
        end_descendants()
        _say(leash, {"over": True})
        os._exit(0)
    return numbers


def _signal(payload: int, number: int) -> None:
    try:
        os.killpg(payload, number)
    except ProcessLookupError:
        os.kill(payload, number)  # it has not made its process group yet
    except OSError:
        return  # no such signal


def _collect(payload: int) -> int | None:
    """Reap whoever has ended; return the status of the command once it has."""
    ended = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == payload:
            ended = os.waitstatus_to_exitcode(status)


def _say(leash: socket.socket, message: dict[str, object]) -> None:
    try:
        leash.send(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # nobody listens any more; what follows from that comes as the end of the leash
