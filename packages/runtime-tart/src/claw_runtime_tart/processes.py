"""The processes that are a virtual machine, found by what the system says of them.

Tart's own lock tells who runs a machine only as long as its directory is what it was. The name of
an instance is in the arguments of its process, and of no other: nobody can guess it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import Final

from claw_core import tools
from claw_core.errors import RuntimeFault
from claw_core.model import IO
from claw_runtime_tart.reached import drop

_NAME: Final = rb"(claw-[0-9a-f]{8}-[0-9a-f]{12}[a-z-]*)(?: |$)"
_RUN: Final = re.compile(rb"^ *(\d+) .*\brun " + _NAME, re.MULTILINE)
_WAIT: Final = re.compile(rb"^ *(\d+) .*\btart[^/ \n]* (?:ip|exec) (?:-\w )*" + _NAME, re.MULTILINE)
"""A question to a machine whose asker has died waits on, for as long as it was told to."""
_LIST: Final = ("/bin/ps", "-Aww", "-o", "pid=,args=")
_TIMEOUT: Final = 20.0


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


async def _found(*patterns: re.Pattern[bytes]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    rest = b""

    async def take(data: bytes) -> None:
        nonlocal rest  # a busy host has megabytes of arguments, most of them nothing to us
        lines, _, rest = (rest + data).rpartition(b"\n")
        for pattern in patterns:
            found.extend((int(pid), name.decode()) for pid, name in pattern.findall(lines))

    try:
        async with asyncio.timeout(_TIMEOUT):
            done = await tools.stream(_LIST, IO(None, take, drop))
    except TimeoutError:
        done = None
    if done is None or done.code:
        raise RuntimeFault("ps gives no list of processes", remedy="see what it says: ps -Aww")
    return found


def kill(pids: list[int]) -> None:
    """Kill processes by force; those that have ended meanwhile are no problem."""
    for pid in pids:
        if pid > 0:  # of a lock's holder that the system cannot tell it says 0 or -1: everybody
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
