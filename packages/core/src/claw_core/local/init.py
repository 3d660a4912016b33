"""The first process of an instance: ends it when the lifeline closes, and starts commands."""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import NoReturn

from claw_core.local import supervisor
from claw_core.local.payload import Confinement, report_failure
from claw_core.local.processes import end_descendants, reap_children

DESCRIPTORS = 5
"""What comes with a request: the request itself, stdin, stdout, stderr, and the leash."""


def orphaned(control: socket.socket) -> bool:
    """Whether the other end of the lifeline is closed already."""
    poll = select.poll()
    poll.register(control, select.POLLRDHUP)
    return bool(poll.poll(0))


def serve(control: socket.socket, confine: Confinement) -> NoReturn:
    """Take requests until the lifeline closes, then end every process of the instance.

    As process 1 of a pid namespace it only has to end itself, and the kernel ends the others.
    """
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
            message, descriptors, _, _ = socket.recv_fds(control, 16, DESCRIPTORS)
            if not message:
                if os.getpid() != 1:
                    end_descendants()
                os._exit(0)
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
            supervisor.run(confine, descriptors)
    except OSError as error:
        os.write(descriptors[-1], report_failure(error.errno or 0, "start", "no further process"))
    for descriptor in descriptors:
        os.close(descriptor)
