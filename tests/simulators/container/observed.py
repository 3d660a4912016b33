"""What a test sees of a world."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from simulators.container import events, strangers
from simulators.container.mac import Mac, alive, started


@attrs.frozen
class Container:
    """The truth about a container.

    Attributes:
        name: its name.
        state: what the server believes, and `ls` says: `running` or `stopped`.
        booted: whether its machine is there, whatever the server believes.
        pid: its init process on the host, while that lives.
    """

    name: str
    state: str
    booted: bool
    pid: int | None


@attrs.frozen
class Recorded:
    """A call of `container` or `launchctl`.

    Attributes:
        program: which.
        argv: its arguments.
        pid: its process.
        env: names of its environment variables.
        start: seconds since the epoch.
        end: the same; None while it runs, and for ever if it was killed.
        exit: its code.
    """

    program: str
    argv: tuple[str, ...]
    pid: int
    env: frozenset[str]
    start: float
    end: float | None = None
    exit: int | None = None


@attrs.frozen
class Fault:
    """Something that is to go wrong."""

    _mac: Mac
    number: str

    @property
    def seen(self) -> int:
        """How many calls it was for, whether it was due or not."""
        faults = self._mac.load("faults.json") or []
        return next((one.get("seen", 0) for one in faults if one["id"] == self.number), 0)

    @property
    def hits(self) -> int:
        """How often it has struck."""
        return sum(line.get("fault") == self.number for line in lines(self._mac, "journal"))


def containers(mac: Mac) -> dict[str, Container]:
    """The truth about all containers but the strangers'."""
    states, helpers, found = mac.load("state.json") or {}, mac.helpers(), {}
    for name in {*os.listdir(mac.path("containers")), *helpers} - set(strangers.NAMES):
        init = mac.load("containers", name, "init.json")
        state = states.get(name, {"state": "stopped"})["state"]
        pid = init["pid"] if alive(init) else None
        found[name] = Container(name, state, alive(helpers.get(name)), pid)
    return found


def processes(mac: Mac) -> dict[int, str]:
    """All that is alive in a world: `cli`, `apiserver`, `helper` or `guest` by pid."""
    found = dict(events.processes(mac))
    helpers = {pid for pid, kind in found.items() if kind == "helper"}
    for pid, parents in _ancestors():
        if pid not in found and helpers & parents:
            found[pid] = "guest"
    return found


def _ancestors() -> Iterator[tuple[int, set[int]]]:
    """Every process with all its ancestors."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            if started(int(entry)) is not None:
                parents[int(entry)] = int(stat[1])
    for pid in parents:
        chain, one = set(), pid
        while one := parents.get(one, 0):
            chain.add(one)
        yield pid, chain


def calls(mac: Mac, program: str) -> list[Recorded]:
    """Every call of a program, in the order in which they began."""
    found: dict[str, Recorded] = {}
    for line in lines(mac, "journal"):
        number = line.get("call", "")
        if "argv" in line:
            argv, env = tuple(line["argv"]), frozenset(line["env"])
            found[number] = Recorded(line["program"], argv, line["pid"], env, line["time"])
        elif "exit" in line:
            found[number] = attrs.evolve(found[number], end=line["time"], exit=line["exit"])
    return [call for call in found.values() if call.program == program]


def lines(mac: Mac, name: str) -> list[dict[str, Any]]:
    """The lines of a journal."""
    path = Path(mac.path(f"{name}.jsonl"))
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]
