"""The warden's process: waits for the owner's death, then runs the reaper.

Run as a script by `warden.py`, isolated and without site-packages, with the reading end of the
owner's lifeline as standard input; so it imports the standard library only, and little of that.
Arguments: the state directory, the directory that contains `claw_core`, the owner's pid.

It reads `r`: reap now; `q`: end without reaping; end of file: the owner is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import sys
import time

PATIENCE = 600.0
"""Seconds for which it keeps trying after the owner's death."""
BRIEF_PATIENCE = 10.0
"""The same while another waiter keeps trying: time enough for the owner to be wholly dead."""
FIRST_PAUSE = 1.0
LAST_PAUSE = 600.0
"""Seconds, from the first to the last, after which it tries again what failed on request."""
REAPER_LIMIT = 300.0
"""Seconds after which a reaper that does not end is killed; it gives itself 120."""
READY = b"+"


class Demand:
    """When an owner that lives needs a reaper: as it asks for one, and again after one that failed.

    An owner can live for long, so what goes on failing is tried again more and more rarely.
    """

    def __init__(self) -> None:
        self.due = math.inf
        """The time at which a reaper shall start."""
        self._pause = FIRST_PAUSE

    def ask(self) -> None:
        """Let one start as soon as none is running."""
        self.due = -math.inf

    def started(self) -> None:
        """One has started; what is asked for from now on it may not have seen."""
        self.due = math.inf

    def ended(self, *, failed: bool, now: float) -> None:
        """One has ended."""
        if failed:
            self.due = min(self.due, now + self._pause)
            self._pause = min(LAST_PAUSE, 2 * self._pause)
        else:
            self._pause = FIRST_PAUSE


class Waiter:
    """One owner's waiter; at most one reaper runs at a time."""

    def __init__(self, state: str, source: str, owner: str) -> None:
        path = os.environ.get("PYTHONPATH")
        self.environment = {
            **os.environ,
            "PYTHONPATH": source + (os.pathsep + path if path else ""),
        }
        # -P: the working directory is not searched for modules
        self.command = [sys.executable, "-P", "-m", "claw_core.reaper", "--state", state]
        self.state = state
        self.owner = owner
        self.reaper: int | None = None
        self.started = 0.0

    def spawn(self) -> None:
        """Start a reaper."""
        self.started = time.monotonic()
        self.reaper = os.posix_spawn(sys.executable, self.command, self.environment)

    def finished(self) -> int | None:
        """Return the reaper's exit status if it has ended."""
        assert self.reaper is not None
        if time.monotonic() - self.started > REAPER_LIMIT:
            os.kill(self.reaper, signal.SIGKILL)
        pid, status = os.waitpid(self.reaper, os.WNOHANG)
        if not pid:
            return None
        self.reaper = None
        return status

    def wait_for_owner(self) -> bool:
        """Serve the owner; return whether it died, instead of saying good-bye."""
        demand = Demand()
        while True:
            wait = 0.05 if self.reaper is not None else max(0.0, demand.due - time.monotonic())
            readable, _, _ = select.select([0], [], [], None if wait == math.inf else wait)
            if readable:
                commands = os.read(0, 4096)
                if not commands:
                    return True
                if b"q" in commands:
                    return False
                demand.ask()
            if self.reaper is not None and (status := self.finished()) is not None:
                demand.ended(failed=status != 0, now=time.monotonic())
            if self.reaper is None and time.monotonic() >= demand.due:
                demand.started()
                self.spawn()

    def only_one(self) -> bool:
        """Whether no other waiter keeps trying; one is enough for what cannot be torn down now."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self.trying = os.open(f"{self.state}/reaping", flags, 0o600)
            fcntl.flock(self.trying, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False  # taken, or the state directory is gone
        return True

    def reap(self) -> None:
        """Run reapers until one has nothing left to do, the ledger is gone, or patience ends."""
        until = time.monotonic() + (PATIENCE if self.only_one() else BRIEF_PATIENCE)
        pause = 0.1
        # Its leases may outlive its lifeline by a moment.
        self.command += ["--owner", self.owner]
        while time.monotonic() < until and os.path.isdir(self.state):  # noqa: PTH112 - starts fast
            self.spawn()
            while (status := self.finished()) is None:
                time.sleep(0.01)
            if status == 0:
                return
            time.sleep(pause)
            pause = min(30.0, 2 * pause)


def detach() -> None:
    """Survive what ends the owner."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Say that it is ready, wait, and reap."""
    detach()
    waiter = Waiter(*sys.argv[1:4])
    with contextlib.suppress(OSError):  # the owner is dead already: that is what we are here for
        os.write(1, READY)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    if waiter.wait_for_owner():
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        # An owner that lives on, having handed over, waits for its child: go on as nobody's child.
        # A reaper that is running meanwhile is not ours any more; the ledger keeps them apart.
        if os.fork():
            os._exit(0)
        waiter.reap()


if __name__ == "__main__":
    main()
