"""Starts `tart run` and ends it when its owner is gone; nothing else on a Mac would.

Run as a script, isolated and without site-packages, so it imports the standard library only, and
little of that. Arguments: seconds of grace, the descriptor of the op-lock, a comma list of
descriptors to hand on, and the command. Standard input is the owner's lifeline.

The op-lock is held until the command has been started, so that no reaper comes between.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

AGAIN = 0.5
"""Seconds after which a request to stop is repeated: `tart run` ignores the first of its life."""


def main() -> int:
    """Start it, wait for its end or the owner's, and return its exit code."""
    grace, lock, inherited, *command = sys.argv[1:]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    # Handlers, since what is ignored would be ignored by the command as well.
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    handed_on = [int(one) for one in inherited.split(",") if one]
    os.set_inheritable(int(lock), False)
    pid = start(command)
    for descriptor in (int(lock), *handed_on):
        os.close(descriptor)
    until = 0.0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        watched = [reading] if until else [reading, 0]
        ready, _, _ = select.select(watched, [], [], AGAIN if until else None)
        if reading in ready:
            os.read(reading, 4096)
        if not until and 0 in ready and not os.read(0, 4096):
            until = time.monotonic() + float(grace)
        if until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if time.monotonic() > until else signal.SIGINT)


def start(command: list[str]) -> int:
    """Start the command in a session of its own, and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.execv(command[0], command)  # noqa: S606 - that is what it is for
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    sys.exit(main())
