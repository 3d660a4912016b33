"""Finding and ending processes by their ancestry; inside an instance, where /proc shows it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time


def parent(pid: int) -> int:
    """The parent of a living process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        line = file.read()
    return int(line[line.rindex(b")") + 2 :].split()[1])


def descendants(ancestor: int) -> list[int]:
    """Every living descendant, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                children.setdefault(parent(int(name)), []).append(int(name))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, ())
    return found[1:]


def count_of(user: int) -> int:
    """Number of processes and threads of a user, as RLIMIT_NPROC counts them."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == user:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return count


def reap_children() -> bool:
    """Collect every child that has ended; whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def end_descendants() -> None:
    """Return when no descendant of this process lives.

    The caller is a subreaper, so nothing escapes by losing its parent, and each round first takes
    away the ability to fork, so that the rounds gain on a fork bomb.
    """
    while True:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not reap_children():
            return
        time.sleep(0.0005)  # the kernel needs a moment, and offers no event for "all of them"
