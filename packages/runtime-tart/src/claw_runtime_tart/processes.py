"""The processes that are a virtual machine, found by what the system says of them.

Tart's own lock tells who runs a machine only as long as its directory is what it was. The name of
an instance is in the arguments of its process, and of no other: nobody can guess it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import Final

from claw_core import tools
from claw_core.errors import RuntimeFault

_NAME: Final = "(claw-[0-9a-f]{8}-[0-9a-f]{12}[a-z-]*)(?: |$)"
_RUN: Final = re.compile(rf"\s*(\d+) .*\brun {_NAME}")
_WAIT: Final = re.compile(rf"\s*(\d+) .*\btart[^/ ]* (?:ip|exec) (?:-\w )*{_NAME}")
"""A question to a machine whose asker has died waits on, for as long as it was told to."""
_LIST: Final = ("ps", "-Aww", "-o", "pid=,args=")


async def of(name: str) -> list[int]:
    """Pids of everything that runs the machine of this name, watches it, or waits for it.

    Raises:
        RuntimeFault: the system does not say.
    """
    return [pid for pid, found in await _found(_RUN, _WAIT) if found == name]


async def names() -> frozenset[str]:
    """The names of all machines that some process runs.

    Raises:
        RuntimeFault: the system does not say.
    """
    return frozenset(name for _, name in await _found(_RUN))


async def _found(*patterns: re.Pattern[str]) -> list[tuple[int, str]]:
    done = await tools.run(_LIST, timeout=20.0)
    if done.code or done.truncated:
        raise RuntimeFault("ps gives no list of processes", remedy="see what it says: ps -Aww")
    lines = done.stdout.decode(errors="replace").splitlines()
    found = (pattern.match(line) for line in lines for pattern in patterns)
    return [(int(match[1]), match[2]) for match in found if match]


def kill(pids: list[int]) -> None:
    """Kill processes by force; those that have ended meanwhile are no problem."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
