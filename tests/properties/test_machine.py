"""The world of the simulation, driven step by step by Hypothesis, which makes failures small."""

from __future__ import annotations

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from claw_core import vfs
from claw_core.testing.actors import Cast, Stage
from claw_core.testing.faults import KINDS, Boundary, Kind
from claw_core.testing.machine import Process, Trap
from claw_core.testing.schedule import HOST
from claw_core.testing.world import DIRECTORY, Mode, World

STAGE = Stage()
HOOKS = ("prepare", "start", "execute", "snapshot", "teardown", "list_instances")
TRAPS: tuple[Trap, ...] = ("kill", "enospc", "eio", "preempt", "cancel")


class Lives(RuleBasedStateMachine):
    """Owners, wardens and reapers come and go; whatever happens, the rules hold at every step."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.start("server", 0)

    def start(self, mode: Mode, seed: int) -> None:
        self.stack.close()
        self.world = World.make(seed, mode, {}, traced=True)
        self.cast = Cast(self.world, STAGE, quiet=False)
        STAGE.model.world = self.world
        self.traps: dict[int, dict[int, Trap]] = {}
        self.world.machine.traps = self.traps
        self.stack.enter_context(vfs.substitute(self.world.machine.calls()))

    def alive(self) -> list[Process]:
        return [one for one in self.world.machine.processes if not one.dead and one.main]

    @precondition(lambda self: not self.world.machine.processes)
    @rule(mode=st.sampled_from(("server", "tool")), seed=st.integers(0, 1 << 16))
    def another_world(self, mode: Mode, seed: int) -> None:
        self.start(mode, seed)

    @rule(hook=st.sampled_from(HOOKS), ahead=st.integers(1, 3), kind=st.sampled_from(KINDS))
    def fault(self, hook: str, ahead: int, kind: Kind) -> None:
        boundary: Boundary = (hook, sum(one == hook for one, _ in self.world.reached) + ahead)
        self.world.faults[boundary] = kind

    @rule(call=st.integers(1, 60), trap=st.sampled_from(TRAPS))
    def trap(self, call: int, trap: Trap) -> None:
        """At a system call of the process that comes next."""
        self.traps.setdefault(len(self.world.machine.processes), {})[call] = trap

    @rule(lives_on=st.sampled_from((0.0, HOST)))
    def owner(self, lives_on: float) -> None:
        self.cast.owner(f"o{len(self.world.machine.processes)}", lives_on)

    @rule()
    def reaper(self) -> None:
        self.cast.reaper(f"r{len(self.world.machine.processes)}")

    @rule()
    def adopter(self) -> None:
        self.world.adopting = True
        self.cast.reaper(f"a{len(self.world.machine.processes)}", adopts=True)

    @rule(seconds=st.sampled_from((0.001, 0.03, 0.3, 3.0, 700.0)))
    def time_passes(self, seconds: float) -> None:
        timeline = self.world.machine.timeline
        until = timeline.now + seconds
        timeline.run(self.world.violations, until)
        timeline.leave()
        timeline.now = max(timeline.now, until)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), kill=st.booleans())
    def strike(self, data: st.DataObject, kill: bool) -> None:
        process = self.alive()[data.draw(st.integers(0, len(self.alive()) - 1))]
        if kill:
            self.world.machine.kill(process)
        else:
            process.main.cancel()

    @rule()
    def reboot(self) -> None:
        self.world.reboot(None)

    @rule(data=st.data())
    def power_loss(self, data: st.DataObject) -> None:
        self.world.reboot(lambda count: data.draw(st.integers(0, count - 1)))

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        self.world.machine.disk.full = full

    @rule(down=st.booleans())
    def backend(self, down: bool) -> None:
        self.world.down = down

    @rule(seconds=st.sampled_from((-1e6, -10.0, 10.0, 1e6)))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.world.machine.wall += seconds

    @rule(seconds=st.sampled_from((1.0, 1e5)))
    def the_machine_sleeps(self, seconds: float) -> None:
        self.world.machine.asleep += seconds

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert self.world.violations == [], "\n".join(self.world.trace or ())

    @invariant()
    def nobody_has_crashed(self) -> None:
        failures = [error for one in self.world.machine.processes for error in one.failures]
        assert failures == [], "\n".join(self.world.trace or ())

    @invariant()
    def what_exists_has_an_entry(self) -> None:
        assert all(self.world.entry(name) for name in self.world.ours())

    @invariant()
    def what_belongs_to_others_is_there(self) -> None:
        assert self.world.others <= {*self.world.existing}

    def teardown(self) -> None:
        """L1: faults stop, everybody ends, one reaper runs, and nothing is left."""
        world, machine = self.world, self.world.machine
        world.faults.clear()
        self.traps.clear()
        machine.disk.full = world.down = False
        try:
            self.time_passes(10_000.0)
            later = self.cast.reaper("later", deadline=1000.0)
            self.time_passes(2_000.0)
            self.no_rule_is_broken()
            self.nobody_has_crashed()
            assert later.status == 0
            assert world.ours() == []
            assert machine.disk.names[DIRECTORY] == {}
        finally:
            for process in machine.processes:
                machine.end(process)
                process.unwind()
            self.stack.close()


TestLives = Lives.TestCase
TestLives.settings = settings(deadline=None, stateful_step_count=25)
