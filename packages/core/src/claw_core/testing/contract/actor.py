"""A child's side of a check: one job, what it says on the way, and an end that nothing delays."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from claw_core.errors import ClawError
from claw_core.testing.contract import bench  # noqa: F401 - loaded once, for all children
from claw_core.testing.contract.case import Case
from claw_core.testing.contract.stage import Stage
from claw_core.testing.contract.verdict import KIT, ROOM, Broken
from claw_core.testing.contract.watchdog import Watchdog

BLOCKED: Final = 3.0
"""Seconds for which the loop may stand still."""


def act(channel: socket.socket, job: Mapping[str, Any]) -> NoReturn:
    """Do a job in this process, say what was found, and end without any further ado.

    Nothing of the loop is cleaned up: a runtime whose tasks do not end must not keep this process.
    """
    inside = ["runtime"]

    def send(event: Mapping[str, Any]) -> None:
        channel.sendall(json.dumps(event).encode() + b"\n")

    def say(moment: str) -> None:
        word, _, name = moment.partition(" ")
        if word == "enter":
            inside.append(name)
        elif word == "leave" and name in inside:
            inside.remove(name)
        send({"at": moment})
        if moment == job["stop"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == job["pause"]:
            os.kill(os.getpid(), signal.SIGSTOP)

    def bark(place: str) -> None:
        blocked = Broken(f"it stands still at {place}", hook=inside[-1], promise=ROOM)
        send({"found": blocked.to_json()})
        os._exit(1)

    try:
        sys.path[:] = job["path"]
        if job["elsewhere"]:
            os.chdir("/")
        os.environ.clear()
        os.environ.update(job["environ"])
        module, _, name = job["work"].partition(":")
        work = getattr(importlib.import_module(module), name)
        broken = _perform(work, job, say, bark)
        send({"found": broken and broken.to_json()})
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is to hear of it
        send({"found": Broken(traceback.format_exc(), hook=inside[-1], promise=KIT).to_json()})
    os._exit(0)


def _perform(
    work: Callable[..., Any],
    job: Mapping[str, Any],
    say: Callable[[str], None],
    bark: Callable[[str], None],
) -> Broken | None:
    """Run a check in a loop of its own, and return what it found."""
    case = Case.from_json(job["case"])
    watchdog = Watchdog(BLOCKED, bark)

    async def main() -> None:
        feeding = asyncio.create_task(watchdog.feed())
        watchdog.start()
        try:
            await work(Stage.open(case, say), **job["arguments"])
        finally:
            watchdog.stop()
            feeding.cancel()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main())
    except BaseExceptionGroup as group:
        return _told(work, group)
    except (Broken, ClawError) as error:
        return _told(work, error)
    return None


def _told(work: Callable[..., Any], error: BaseException) -> Broken:
    """What an error says of the runtime.

    Of a session that failed, and whose teardown did so as well, that is what the check itself saw,
    or else the teardown: the first failure may be the one that the check asked for.
    """
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, Broken):
            return leaf
    for leaf in reversed(leaves):
        if isinstance(leaf, ClawError):
            return Broken.at(work, leaf)
    raise error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
