"""What goes wrong, and when; a schedule is its number, and follows from nothing else.

The first ones are all those with one owner and up to three faults at the boundaries of hooks, once
for each way in which a backend works. The others are random: several owners and reapers at once,
some of whom adopt, kills, cancellations and errors at any system call, reboots, power losses, a
full disk, a backend that is down, clocks that jump.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from claw_core.testing.faults import BOUNDARIES, HONEST, KINDS, TOTAL, Faults, combinations
from claw_core.testing.machine import Trap
from claw_core.testing.world import Mode

Event: TypeAlias = Literal[
    "owner", "host", "reaper", "adopter", "kill", "cancel", "reboot", "power", "full", "room",
    "down", "up", "wall", "sleep",
]  # fmt: skip
"""What can happen in a world at any time, by itself; a host is an owner whose router lives on."""
HOST: Final = 30.0
"""Seconds for which it does."""
EXHAUSTIVE: Final = 2 * TOTAL
"""Schedules with a lower number are those that are tried without exception."""


@attrs.frozen
class Schedule:
    """What goes wrong, and when.

    Attributes:
        seed: its number, from which everything else follows.
        mode: how the backend works.
        faults: what happens at the boundaries of hooks.
        traps: number of a process -> number of a system call -> what happens there.
        events: what else happens, each with its time in seconds.
        keeps: whether every other owner, the first one included, keeps its instance.
    """

    seed: int
    mode: Mode = "server"
    faults: Faults = attrs.field(factory=dict)
    traps: Mapping[int, Mapping[int, Trap]] = attrs.field(factory=dict)
    events: tuple[tuple[float, Event], ...] = ((0.0, "owner"),)
    keeps: bool = False

    @classmethod
    def of(cls, seed: int) -> Schedule:
        """The schedule of this number."""
        if seed < EXHAUSTIVE:
            return cls(seed, "server" if seed < TOTAL else "tool", every()[seed % TOTAL])
        chance = random.Random(-1 - seed)  # noqa: S311 - it must be the same every time
        faults = {
            chance.choice(BOUNDARIES): chance.choice(KINDS) for _ in range(chance.choice(_FEW))
        }
        traps: dict[int, dict[int, Trap]] = {}
        for _ in range(chance.choice(_FEW)):
            process = chance.choice((0, 0, 0, 1, 2, 2, 3, 4))
            traps.setdefault(process, {})[chance.randint(1, 60)] = chance.choice(_TRAPS)
        events: list[tuple[float, Event]] = [(0.0, chance.choice(("owner", "host")))]
        for _ in range(chance.choice(_FEW)):
            event = chance.choice(_EVENTS)
            start = chance.random() * chance.choice((0.5, 5.0))
            events.append((start, event))
            if event in _ENDS:
                events.append((start + chance.choice((0.1, 1.0, 30.0)), _ENDS[event]))
        mode: Mode = chance.choice(("server", "tool"))
        keeps = chance.random() < 0.3
        if keeps and chance.random() < 0.5:
            faults["stop", 1] = chance.choice(HONEST)
        if chance.random() < 0.1:
            events.append((chance.random() * chance.choice((0.5, 5.0)), "adopter"))
        if chance.random() < 0.1:
            traps.setdefault(0, {})[chance.randint(1, 60)] = "cancel"
        return cls(seed, mode, faults, traps, tuple(sorted(events)), keeps)


_FEW: Final = (0, 0, 1, 1, 1, 2, 3)
_TRAPS: Final[tuple[Trap, ...]] = ("kill", "kill", "enospc", "eio", "preempt", "preempt")
_EVENTS: Final[tuple[Event, ...]] = (
    "owner", "host", "reaper", "reaper", "kill", "kill", "cancel", "reboot", "power", "full",
    "down", "wall", "sleep",
)  # fmt: skip
CALM: Final = frozenset({"owner", "host", "reaper", "kill", "cancel"})
"""Events that leave the disk, the backend and the clocks alone."""
_ENDS: Final[Mapping[Event, Event]] = {"full": "room", "down": "up"}


@functools.cache
def every() -> tuple[Faults, ...]:
    """The faults of the schedules that are tried without exception."""
    return tuple(combinations())
