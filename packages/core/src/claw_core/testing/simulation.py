"""Runs schedules of faults against core's own code, and says which rule of the guarantee broke."""

from __future__ import annotations

from typing import Final

from claw_core import vfs
from claw_core.testing.actors import Cast, Stage
from claw_core.testing.clock import Deadlock
from claw_core.testing.faults import BOUNDARIES, KINDS, TOTAL, Boundary, Faults, Kind
from claw_core.testing.machine import Process
from claw_core.testing.schedule import CALM, EXHAUSTIVE, HOST, Event, Schedule, every
from claw_core.testing.world import (
    DIRECTORY,
    KEPT,
    LINGER,
    OTHERS,
    SETTLE,
    Mode,
    Violation,
    World,
)

MOST_TURNS: Final = 200_000
ENOUGH: Final = 5_000.0
"""Seconds after which a world must have come to rest."""


class Broken(AssertionError):
    """A schedule breaks the guarantee; the text has its number and everything that happened."""


def search(count: int, seed: int = 0) -> int:
    """Run so many schedules, from this number on, and return how many that were.

    Raises:
        Broken: one breaks the guarantee; it is run once more, to tell everything that happens.
    """
    stage = Stage()
    for number in range(seed, seed + count):
        run(Schedule.of(number), stage)
    return count


def explore(mode: Mode, part: int = 0, parts: int = 1) -> int:
    """Try every schedule with up to three faults, and return how many runs that took.

    Runs go the same way up to the first difference. So a fault at a boundary that nobody comes to
    makes no difference, and its schedule is not run again: the one without it was.

    Args:
        mode: how the backend works.
        part: which part of them, from 0.
        parts: in how many parts they are tried.

    Raises:
        Broken: as `run`.
    """
    stage = Stage()
    base = 0 if mode == "server" else TOTAL
    known: dict[frozenset[tuple[Boundary, Kind]], frozenset[Boundary]] = {}
    runs = 0
    for number, faults in enumerate(every()):
        if len(faults) > 1 and _group(faults) % parts != part:
            continue
        key = frozenset(faults.items())
        for fault in key:
            without = known.get(key - {fault})
            if without is not None and fault[0] not in without:
                known[key] = without
                break
        else:
            known[key] = run(Schedule.of(base + number), stage)
            runs += 1
    return runs


def _group(faults: Faults) -> int:
    """The number of the first fault; with it in common, schedules decide about each other."""
    boundary, kind = next(iter(faults.items()))
    return BOUNDARIES.index(boundary) * len(KINDS) + KINDS.index(kind)


def run(schedule: Schedule, stage: Stage | None = None) -> frozenset[Boundary]:
    """Run one schedule, and return the boundaries that it came to while faults could strike.

    Args:
        schedule: what goes wrong.
        stage: one that can be used again.

    Raises:
        Broken: it breaks the guarantee; it is run once more, to tell everything that happens.
    """
    stage = stage or Stage()
    simulation = Simulation(schedule, stage)
    if simulation.run():
        traced = Simulation(schedule, stage, traced=True)
        raise Broken(traced.report(traced.run()))
    return simulation.reached


class Simulation:
    """One run of one schedule."""

    def __init__(self, schedule: Schedule, stage: Stage, *, traced: bool = False) -> None:
        self.schedule = schedule
        chance = 0 if schedule.seed < EXHAUSTIVE else schedule.seed
        self.world = World.make(chance, schedule.mode, schedule.faults, traced=traced)
        self.world.machine.traps = schedule.traps
        traps = {trap for traps in schedule.traps.values() for trap in traps.values()}
        self.calm = {event for _, event in schedule.events} <= CALM and traps <= {"cancel"}
        self.cast = Cast(self.world, stage, self.calm)
        self.eventful = 0.0
        self.reached: frozenset[Boundary] = frozenset()
        stage.model.world = self.world

    def run(self) -> list[Violation]:
        """Run it to its end, and return the rules that it breaks."""
        machine = self.world.machine
        with vfs.substitute(machine.calls()):
            for time, event in self.schedule.events:
                machine.timeline.call(time, self.happen, event)
            try:
                self.rest()
                self.look_at_wardens()
                self.heal()
                self.reap_all("later", "again")
                self.expire()
                self.adopt()
            except Deadlock as error:
                self.world.violate("L1", str(error))
            finally:
                machine.timeline.leave()
                for process in machine.processes:
                    machine.end(process)
                    process.unwind()
        return self.world.violations

    def rest(self) -> None:
        """Let everything happen that is due, until nothing is.

        Raises:
            Deadlock: it never ends.
        """
        violations = self.world.violations
        if not self.world.machine.timeline.run(violations, ENOUGH, MOST_TURNS) and not violations:
            raise Deadlock("it goes on and on")
        for process in self.world.machine.processes:
            for error in process.failures:
                self.world.violate("L1", f"{process.name} has crashed: {error!r}")
            if not process.dead and not violations and not process.name.startswith("w-"):
                raise Deadlock(f"{process.name} waits for ever")

    def happen(self, event: Event) -> None:
        """Let one event happen."""
        world, machine = self.world, self.world.machine
        self.eventful = machine.timeline.now
        if world.trace is not None:
            world.note(f"event: {event}")
        count = len(machine.processes)
        keeps = self.schedule.keeps and count % 2 == 0
        if event == "owner":
            self.cast.owner(f"o{count}", keeps=keeps)
        elif event == "host":
            self.cast.owner(f"h{count}", HOST, keeps=keeps)
        elif event == "reaper":
            self.cast.reaper(f"r{len(machine.processes)}")
        elif event == "adopter":
            world.adopting = self.cast.disturbed = True  # what it adopts has no warden
            self.cast.reaper(f"a{count}", adopts=True)
        elif event in {"kill", "cancel"}:
            alive = [process for process in machine.processes if not process.dead and process.main]
            if alive:
                self._strike(event, machine.chance.choice(alive))
        elif event in {"reboot", "power"}:
            self.cast.disturbed = True
            world.reboot(machine.chance.randrange if event == "power" else None)
        elif event in {"full", "room"}:
            machine.disk.full = event == "full"
        elif event in {"down", "up"}:
            world.down = event == "down"
        elif event == "wall":
            machine.wall += machine.chance.choice((-1e6, -10.0, 10.0, 1e6))
        else:
            machine.asleep += machine.chance.choice((1.0, 1e5))

    def _strike(self, event: Event, process: Process) -> None:
        if process.name.startswith("w-"):
            self.cast.disturbed = True
        self.world.note(f"{event} {process.name}")
        if event == "kill":
            self.world.machine.kill(process)
        else:
            process.main.cancel()

    def heal(self) -> None:
        """Nothing more goes wrong."""
        world, machine = self.world, self.world.machine
        self.reached = frozenset(world.reached)
        world.faults.clear()
        world.down = machine.disk.full = False
        machine.traps = {}

    def look_at_wardens(self) -> None:
        """L1: where the wardens could work, nothing is left, and it has not taken long."""
        world = self.world
        traps = {trap for traps in self.schedule.traps.values() for trap in traps.values()}
        struck = bool(traps & {"kill", "eio"})
        if world.violations or self.cast.disturbed or struck:
            return
        if left := self.left():
            world.violate("L1", f"the wardens have left {left}")
        quick = "hang" not in self.schedule.faults.values()
        limit = max(self.eventful, world.last_fault) + 2 * SETTLE + LINGER + 5.0
        if quick and self.calm and world.emptied > limit:
            world.violate("L1", f"the last instance was there until {world.emptied}")

    def reap_all(self, *names: str) -> None:
        """L1: one more process leaves nothing. L2: another one then has nothing to do."""
        if not self.world.others <= {*self.world.existing}:
            self.world.violate("S2", "an instance of someone else is gone")
        self.world.check_kept()
        if not self.left():
            return
        for name in names:
            asked = self.world.asked_so_far()
            process = self.cast.reaper(name, deadline=1000.0)
            self.rest()
            if self.world.violations:
                return
            if left := self.left():
                self.world.violate(
                    "L1", f"the {name} reaper (status {process.status}) leaves {left}"
                )
            if process.status != 0:
                self.world.violate("L1", f"the {name} reaper has status {process.status}")
            if name == "again" and self.world.asked_so_far() != asked:
                self.world.violate("L2", "a reap of nothing asks the backend for something")
        self.world.check_kept()

    def expire(self) -> None:
        """L1: what is kept is gone when its time is over."""
        if not self.world.kept() or self.world.violations:
            return
        self.world.machine.asleep += KEPT
        self.world.machine.wall += KEPT  # it may have been set back
        self.reap_all("expired")

    def adopt(self) -> None:
        """L1: where somebody was asked to, what is ours and has no entry is gone as well."""
        if not self.world.adopting or self.world.violations:
            return
        process = self.cast.reaper("adopter", deadline=1000.0, adopts=True)
        self.rest()
        left = [*self.left(), *({OTHERS[1]} & {*self.world.existing})]
        if left or process.status != 0:
            self.world.violate("L1", f"the adopter (status {process.status}) leaves {left}")

    def left(self) -> list[str]:
        """What is there of ours and not kept: instances, and files of the ledger."""
        kept = self.world.kept()
        identities = [name[-12:] for name in kept]
        files = self.world.machine.disk.names[DIRECTORY]
        return [
            *(name for name in self.world.ours() if name not in kept),
            *(file for file in files if not file.startswith(tuple(identities))),
        ]

    def report(self, violations: list[Violation]) -> str:
        """What to tell of a failure."""
        broken = "\n".join(f"  {one.rule} at {one.time:.4f} s: {one.what}" for one in violations)
        trace = "\n".join(self.world.trace or ())
        return (
            f"schedule {self.schedule.seed} breaks the guarantee; replay it with "
            f"--claw-seed={self.schedule.seed}\n{broken}\n{self.schedule}\n{trace}"
        )
