"""Finds and ends the processes of a sandbox by what the kernel says of each, never by a stored pid.

Every sandbox has a directory of its own at `MARKED`. The command line of bwrap names it before it
is mounted; from then on the mounts of every process inside show it, and nothing inside has the
capabilities to hide it. A pid is only used while a descriptor makes sure whose it is.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Final, TypeAlias

from claw_core.errors import SpentInstance
from claw_core.tasks import in_thread

MARKED: Final = "/run"
Mark: TypeAlias = re.Pattern[bytes]

_TIMEOUT: Final = 20.0
"""Seconds that killed processes have to end; they do in milliseconds."""


def mark(name: str, number: str = r"\d+") -> Mark:
    """What the processes of an instance, or of one of its commands, show."""
    text = (
        r"(?:\Abwrap\0--bind\0[^\0]*|^\d+ \d+ \S+ \S*)"
        rf"/({name})(?:\.gone)?/{number}[\0 ]{MARKED}[\0 ]"
    )
    return re.compile(text.encode(), re.MULTILINE)


def names() -> set[str]:
    """Names of the instances that have processes."""
    anyone = mark("claw-[0-9a-f]+-[0-9a-f]+")
    return {found[1].decode() for pid in _pids() if (found := _shows(pid, anyone))}


async def end(wanted: Mark) -> None:
    """Kill what shows the mark, and return when nothing does.

    Raises:
        SpentInstance: it does not end.
    """
    quiet = 0
    try:
        async with asyncio.timeout(_TIMEOUT):
            while quiet < 2:  # while one look reads a process, its last child may begin
                found = await in_thread(_all, wanted)
                quiet = 0 if found else quiet + 1
                await asyncio.gather(*(_kill(pid, wanted) for pid in found))
    except TimeoutError:
        raise SpentInstance("its processes do not end", remedy="see `claw reap`") from None


async def _kill(pid: int, wanted: Mark) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        if _shows(pid, wanted):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            # A first process of a namespace counts as ended when all the others have.
            loop.add_reader(descriptor, _settle, ended)
            await ended
    except ProcessLookupError:
        return
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _all(wanted: Mark) -> list[int]:
    return [pid for pid in _pids() if _shows(pid, wanted)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _shows(pid: int, wanted: Mark) -> re.Match[bytes] | None:
    for source in ("cmdline", "mountinfo"):
        try:
            found = wanted.search(Path(f"/proc/{pid}/{source}").read_bytes())
        except OSError:
            continue  # it has ended, or is another user's
        if found:
            return found
    return None
