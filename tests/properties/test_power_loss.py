"""A power loss at any moment: whatever was not synced may be lost, torn or NUL, in any combination.

The ledger's own operations run on a disk in memory that knows what was synced. The power goes at
each of their system calls; every content that the disk may then have is scanned and reaped, as
after the next boot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from claw_core import durable, vfs
from claw_core.entry import parse
from claw_core.errors import LedgerUnavailable
from claw_core.intent import Intent
from claw_core.testing.actors import RUNTIME, Cast, Stage
from claw_core.testing.machine import Process
from claw_core.testing.world import DIRECTORY, INSTALL, World

IDENTITY = "ab" * 16
NAME = f"claw-{INSTALL}-{IDENTITY[:12]}"


class Choices:
    """Answers `choose` so that, run again and again, every sequence of answers comes once."""

    def __init__(self) -> None:
        self.answers: list[list[int]] = []
        self.at = 0

    def __call__(self, count: int) -> int:
        if self.at == len(self.answers):
            self.answers.append([0, count])
        answer = self.answers[self.at]
        assert answer[1] == count, "it does not go the same way again"
        self.at += 1
        return answer[0]

    def next(self) -> bool:
        """Go on to the next sequence; false when there is none."""
        while self.answers and self.answers[-1][0] + 1 == self.answers[-1][1]:
            self.answers.pop()
        if not self.answers:
            return False
        self.answers[-1][0] += 1
        self.at = 0
        return True


def life(world: World) -> None:
    """What an owner does, every durable step of it; the instance itself needs no client."""
    lease = world.ledger().acquire(Intent.new(INSTALL, RUNTIME, {}, settle=0.3, identity=IDENTITY))
    lease.op_lock()
    lease.record("endpoint", "unix:///x")
    world.create(NAME)
    lease.mark("running")
    lease.mark("stopping")
    world.delete(NAME)
    lease.mark("limbo", boot="another", since=0.0)
    lease.mark("gone")
    lease.release()


def sweep(world: World) -> None:
    """A scan that finds what crashes left behind, and removes it."""
    world.ledger().acquire(Intent.new(INSTALL, RUNTIME, {}, identity=IDENTITY)).abandon()
    for name in (".tmp-cd", "ef.op"):
        vfs.close(vfs.open_file(f"{DIRECTORY}/{name}", 0o102))
    lease = world.ledger().claim(IDENTITY)
    assert lease is not None
    lease.op_lock()
    lease.abandon()
    world.ledger().scan()
    lease = world.ledger().claim(IDENTITY)
    assert lease is not None
    lease.release()


def interrupted(work: Callable[[World], None], call: int) -> tuple[World, bool]:
    """Do some work until the power goes at a system call; return whether it ended before that."""
    world = World.make(0, "server", {})
    machine = world.machine
    machine.traps = {0: {call: "kill"}}
    done = []

    async def main() -> None:
        work(world)
        done.append(True)

    with vfs.substitute(machine.calls()):
        process = machine.spawn("owner", main)
        machine.timeline.run()
        machine.timeline.leave()
        machine.end(process)
        process.unwind()
    assert process.failures == []
    return world, bool(done)


def outcomes(work: Callable[[World], None]) -> Iterator[tuple[int, World]]:
    """Every content of the disk after a power loss at every system call."""
    for call in itertools.count(1):
        choices = Choices()
        while True:
            world, done = interrupted(work, call)
            world.reboot(choices)
            yield call, world
            if not choices.next():
                break
        if done:
            return


def reaped(world: World, stage: Stage) -> Process:
    """Let the first process after the boot reap."""
    stage.model.world = world
    machine = world.machine
    machine.traps = {}
    with vfs.substitute(machine.calls()):
        process = Cast(world, stage).reaper("later", deadline=100.0)
        machine.timeline.run()
        machine.timeline.leave()
    assert process.failures == []
    return process


@pytest.mark.parametrize("work", [life, sweep])
def test_nothing_leaks_whatever_of_the_disk_survives(work: Callable[[World], None]) -> None:
    stage, count, calls, alive = Stage(), 0, set(), False
    for call, world in outcomes(work):
        count += 1
        calls.add(call)
        assert world.violations == []
        if NAME in world.existing:  # S1: then it has an entry that can be read
            alive = True
            found = world.entry(NAME)
            assert found is not None, call
            content = parse(bytes(found[1].data), IDENTITY, INSTALL)
            assert content.intent is not None, call
        process = reaped(world, stage)
        assert world.violations == []
        assert NAME not in world.existing
        # The bytes are durable before the name is seen, so that no entry is ever damaged.
        assert world.machine.disk.names[DIRECTORY] == {}
        assert process.status == 0
    assert count > 2 * len(calls) > 40
    assert alive == (work is life)


@pytest.mark.parametrize("step", ["sync_data", "sync_directory"])
def test_the_replay_finds_a_sync_that_is_missing(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, step, lambda where: None)
    lost = [
        call
        for call, world in outcomes(life)
        if world.violations or (NAME in world.existing and world.entry(NAME) is None)
    ]
    assert lost


def test_a_refused_intent_leaves_nothing() -> None:
    """S7, with the power gone after a disk that was full."""

    def refused(world: World) -> None:
        world.machine.disk.full = True
        with pytest.raises(LedgerUnavailable):
            life(world)

    for _, world in outcomes(refused):
        assert NAME not in world.existing
        assert world.violations == []


def test_the_choices_are_all_made() -> None:
    choices, seen = Choices(), []
    while True:
        first = choices(2)
        seen.append((first, choices(3) if first else None))
        if not choices.next():
            break
    assert seen == [(0, None), (1, 0), (1, 1), (1, 2)]
