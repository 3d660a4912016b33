"""The first process of an instance: ends it when the lifeline closes, and starts commands."""

from __future__ import annotations

import array  # noqa: F401 - for recv_fds, which runs as a user who may not read the library
import os
import select
import signal
import socket
from typing import NoReturn

from claw_core.local import supervisor
from claw_core.local.payload import Confinement, report_failure
from claw_core.local.processes import end_descendants, reap_children

DESCRIPTORS = 5
"""At most what comes with a request: itself, the streams (or a way back for the terminal that the
command shall have), and the leash."""


def orphaned(control: socket.socket) -> bool:
    """Whether the other end of the lifeline is closed already."""
    poll = select.poll()
    poll.register(control, select.POLLRDHUP)
    return bool(poll.poll(0))


def serve(control: socket.socket, confine: Confinement) -> NoReturn:
    """Take requests until the lifeline closes, then end every process of the instance.

    As process 1 of a pid namespace it only has to end itself, and the kernel ends the others.
    Otherwise SIGTERM is as good as the end of the lifeline, and so is any failure.
    """
    try:
        if os.getpid() != 1:
            signal.signal(signal.SIGTERM, _terminate)
        _serve(control, confine)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getpid() != 1:
            end_descendants()
        os._exit(0)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit


def _serve(control: socket.socket, confine: Confinement) -> None:
    children, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(children, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == children:
                os.read(children, 4096)
                reap_children()
                continue
            try:
                message, descriptors, _, _ = socket.recv_fds(control, 16, DESCRIPTORS)
            except ConnectionResetError:
                return  # the owner died before it read that the instance is ready
            if not message:
                return
            for descriptor in descriptors:
                # A payload that inherited the leash could report its own end, and be believed.
                # (Python 3.11's recv_fds ignores its flags, so MSG_CMSG_CLOEXEC does not help.)
                os.set_inheritable(descriptor, False)
            _start(control, confine, descriptors)


def _start(control: socket.socket, confine: Confinement, descriptors: list[int]) -> None:
    """Fork a supervisor for one command; its end of the leash closes if that fails."""
    try:
        if os.fork() == 0:
            control.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            supervisor.run(confine, descriptors)
    except OSError as error:
        os.write(descriptors[-1], report_failure(error.errno or 0, "start", "no further process"))
    for descriptor in descriptors:
        os.close(descriptor)
