"""Named crash points on the path that must survive a crash; free when none is set.

`CLAW_FAILPOINT="ledger.post-rename=2*off->kill"` lets the point pass twice and then kills the
process. Several points are separated by `;`. The kinds are `off`, `kill`, `raise`, `enospc`,
`hang` and `sleep(MILLISECONDS)`; `N*kind` applies a kind N times, and `->` goes on to the next.
`CLAW_FAILPOINT_LOG=FILE` appends the name of every point that is passed.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

POINTS: Final[dict[str, str]] = {}
"""Every point of the code, with what has just happened there."""


class InjectedFault(Exception):
    """Raised by a failpoint of kind `raise`."""


class _Plan:
    """What one point does, call after call."""

    def __init__(self, text: str) -> None:
        self.steps: list[tuple[float, str]] = []
        for step in text.split("->"):
            count, star, kind = step.rpartition("*")
            self.steps.append((float(count) if star else float("inf"), kind.strip()))

    def next(self) -> str:
        while self.steps:
            left, kind = self.steps[0]
            if left > 0:
                self.steps[0] = (left - 1, kind)
                return kind
            self.steps.pop(0)
        return "off"


def declare(name: str, meaning: str) -> str:
    """Register a point at import time, and return its name."""
    POINTS[name] = meaning
    return name


def hit(name: str) -> None:
    """Pass a point; does nothing unless the environment asked for it at start-up."""
    if _armed:
        _act(name)


def _act(name: str) -> None:
    if name not in POINTS:
        msg = f"failpoint {name!r} is not declared"
        raise ValueError(msg)
    if _log is not None:
        with Path(_log).open("a") as log:
            log.write(f"{name}\n")
    plan = _plans.get(name)
    kind = plan.next() if plan else "off"
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()
    elif kind == "raise":
        raise InjectedFault(name)
    elif kind == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif kind == "hang":
        threading.Event().wait()
    elif kind.startswith("sleep(") and kind.endswith(")"):
        time.sleep(float(kind[6:-1]) / 1000)
    elif kind != "off":
        msg = f"CLAW_FAILPOINT: unknown kind {kind!r} for {name}"
        raise ValueError(msg)


def arm(plans: str, log: str | None = None) -> None:
    """Set the points of this process from a text such as `CLAW_FAILPOINT` holds; empty disarms."""
    global _armed, _log
    _plans.clear()
    for item in filter(None, plans.split(";")):
        name, _, text = item.partition("=")
        _plans[name.strip()] = _Plan(text)
    _log = log
    _armed = bool(_plans or _log)


_plans: dict[str, _Plan] = {}
_log: str | None = None
_armed = False
arm(os.environ.get("CLAW_FAILPOINT", ""), os.environ.get("CLAW_FAILPOINT_LOG"))
