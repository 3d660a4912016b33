"""Watches one command, on a leash: what comes down it are signals, its end is the end of all."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import Any, NoReturn

from claw_core.local import kernel
from claw_core.local.payload import Confinement, report_failure, start
from claw_core.local.processes import end_descendants


def run(confine: Confinement, descriptors: list[int]) -> NoReturn:
    """Run the command of a request, report how it ended, and end.

    Whatever the command leaves behind goes to the first process. When the leash closes before the
    command has ended, every descendant is ended first.
    """
    request, stdin, stdout, stderr, leash_descriptor = descriptors
    leash = socket.socket(fileno=leash_descriptor)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    with open(request, "rb") as file:
        wanted: dict[str, Any] = json.loads(file.read())
    children, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        payload = os.fork()
    except OSError as error:
        leash.send(report_failure(error.errno or 0, "start", "no further process"))
        os._exit(0)
    if payload == 0:
        start(confine, wanted, (stdin, stdout, stderr), leash)
    for descriptor in (stdin, stdout, stderr):
        os.close(descriptor)
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    poll.register(children, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == leash.fileno():
                numbers = _receive(leash)
                if not numbers:
                    end_descendants()
                    os._exit(0)
                for number in numbers:
                    _signal(payload, number)
            else:
                os.read(children, 4096)
                ended = _collect(payload)
                if ended is not None:
                    _report(leash, ended)
                    os._exit(0)


def _receive(leash: socket.socket) -> bytes:
    try:
        return leash.recv(64)
    except ConnectionResetError:
        return b""


def _signal(payload: int, number: int) -> None:
    try:
        os.killpg(payload, number)
    except (ProcessLookupError, PermissionError):
        return  # it has ended meanwhile, or has no process group yet


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


def _report(leash: socket.socket, ended: int) -> None:
    try:
        leash.send(json.dumps({"ended": ended}).encode() + b"\n")
    except OSError:
        end_descendants()  # the leash closed in the same moment: the command is not wanted any more
