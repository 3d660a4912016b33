"""The teardown guarantee under every fault: core's own code, a virtual clock, and a world of rules.

A failure names its schedule: `pytest tests/properties/test_simulation.py --claw-seed=N` runs it
again. With `-m soak`, CLAW_SCHEDULES is how many random ones are run (1,000,000) and CLAW_SEED
where they start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from claw_core import durable, lifeline, locks, metadata, reaper, session, teardown, vfs
from claw_core.tasks import persist
from claw_core.testing.actors import SimulatedWarden, Stage
from claw_core.testing.faults import BOUNDARIES, HONEST, KINDS, TOTAL, Kind
from claw_core.testing.machine import Machine, Trap
from claw_core.testing.schedule import EXHAUSTIVE, Event, Schedule
from claw_core.testing.simulation import Broken, Simulation, explore, run, search
from claw_core.testing.world import Mode, World
from claw_core.waiter import Demand
from kills.harness import tell

PARTS = 8
RANDOM = 1_250
SHARES = 4
SOAK_SHARES = 16
TRAPS: tuple[Trap, ...] = get_args(Trap)


@pytest.fixture(autouse=True)
def _one_schedule_only(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--claw-seed") is not None:
        name = getattr(request.node, "originalname", request.node.name)
        if name != "test_the_schedule_that_was_asked_for":
            pytest.skip("one schedule is replayed")


def test_the_schedule_that_was_asked_for(request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--claw-seed")
    run(Schedule.of(0 if seed is None else seed))


def test_every_combination_of_up_to_three_faults_has_a_number() -> None:
    assert (len(BOUNDARIES), len(KINDS), TOTAL) == (9, 8, 45_385)
    assert len({tuple(Schedule.of(seed).faults.items()) for seed in range(TOTAL)}) == TOTAL
    assert Schedule.of(TOTAL - 1).mode == "server"
    assert Schedule.of(TOTAL).mode == Schedule.of(EXHAUSTIVE - 1).mode == "tool"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", ["server", "tool"])
def test_nothing_leaks_under_any_three_faults(mode: Mode, part: int) -> None:
    runs = explore(mode, part, PARTS)
    tell("schedules", where="every three faults", schedules=runs, leaks=0)
    assert runs > 500


@pytest.mark.parametrize("share", range(SHARES))
def test_nothing_leaks_in_random_worlds(share: int) -> None:
    assert search(RANDOM, EXHAUSTIVE + share * RANDOM) == RANDOM


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("share", range(SOAK_SHARES))
def test_nothing_leaks_in_a_million_random_worlds(share: int) -> None:
    count = int(os.environ.get("CLAW_SCHEDULES", "1000000")) // SOAK_SHARES
    start = int(os.environ.get("CLAW_SEED", EXHAUSTIVE))
    assert search(count, start + share * count) == count
    tell("schedules", where="random", schedules=count, leaks=0)


@pytest.mark.parametrize("mode", ["server", "tool"])
def test_what_is_kept_is_there_until_its_time_under_any_two_faults(mode: Mode) -> None:
    """Of the two at least one strikes what only they do."""
    stage = Stage()
    boundaries = (("stop", 1), *BOUNDARIES)
    for count in (1, 2):
        for chosen in itertools.combinations(boundaries, count):
            if not {("stop", 1), ("snapshot", 1)} & {*chosen}:
                continue
            kinds = (HONEST if hook == "stop" else KINDS for hook, _ in chosen)
            for faults in itertools.product(*kinds):
                run(Schedule(0, mode, dict(zip(chosen, faults, strict=True)), keeps=True), stage)


@pytest.mark.parametrize("mode", ["server", "tool"])
def test_what_is_kept_is_there_whatever_happens_at_any_system_call(mode: Mode) -> None:
    """Found by schedule 101940: that it is kept was written, and not to be made durable."""
    stage = Stage()
    ends: dict[tuple[str, int], Kind] = {("teardown", 1): "kill-after"}
    plain = Simulation(Schedule(0, mode, keeps=True), stage)
    assert plain.run() == []
    for trap in TRAPS:
        for call in range(1, plain.world.machine.processes[0].calls + 1):
            for faults in ({}, ends):
                traps = {0: {call: trap}}
                run(Schedule(EXHAUSTIVE + call, mode, faults, traps, keeps=True), stage)


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("mode", ["server", "tool"])
def test_nothing_leaks_whatever_happens_at_any_system_call(mode: Mode, trap: Trap) -> None:
    """Of an owner to its end, and of the reaper of one that was killed, beside another reaper."""
    stage = Stage()
    for call in range(1, 45):
        run(Schedule(EXHAUSTIVE + call, mode, traps={0: {call: trap}}), stage)
    for schedule in two_reapers(mode, trap):
        run(schedule, stage)


@pytest.mark.parametrize("mode", ["server", "tool"])
def test_a_cancellation_at_any_system_call_leaves_nothing_while_the_router_lives_on(
    mode: Mode,
) -> None:
    stage = Stage()
    for call in range(1, 45):
        traps: dict[int, dict[int, Trap]] = {0: {call: "cancel"}}
        run(Schedule(EXHAUSTIVE + call, mode, traps=traps, events=((0.0, "host"),)), stage)


@pytest.mark.parametrize("mode", ["server", "tool"])
def test_what_is_ours_and_has_no_entry_is_adopted_beside_all_others(mode: Mode) -> None:
    """Two are asked to at once, while owners make and end instances of their own."""
    stage = Stage()
    for seed in range(EXHAUSTIVE, EXHAUSTIVE + 60):
        first, second = 0.02 * (seed % 7), 0.02 * (seed % 30)
        events: list[tuple[float, Event]] = [
            (0.0, "owner"), (first, "adopter"), (second, "adopter"), (0.1, "host")
        ]  # fmt: skip
        run(Schedule(seed, mode, events=tuple(sorted(events))), stage)


def two_reapers(mode: Mode, trap: Trap) -> Iterator[Schedule]:
    """The first one is interrupted, at one system call after the other."""
    for call in range(1, 45):
        faults: dict[tuple[str, int], Kind] = {("start", 1): "kill"}
        events: tuple[tuple[float, Event], ...] = ((0.0, "owner"), (0.1, "reaper"))
        yield Schedule(EXHAUSTIVE + call, mode, faults, {2: {call: trap}}, events)


def test_a_schedule_goes_the_same_way_every_time() -> None:
    for seed in (0, 1_000, TOTAL + 77, *range(EXHAUSTIVE, EXHAUSTIVE + 40)):
        traces = []
        for _ in range(2):
            simulation = Simulation(Schedule.of(seed), Stage(), traced=True)
            assert simulation.run() == []
            traces.append(simulation.world.trace)
        assert traces[0] == traces[1] != []


def test_random_worlds_meet_everything_that_can_happen() -> None:
    """What is never met is never tested: kinds, events, traps, and several owners at once."""
    schedules = [Schedule.of(seed) for seed in range(EXHAUSTIVE, EXHAUSTIVE + RANDOM)]
    events = {event for schedule in schedules for _, event in schedule.events}
    assert events == {
        *(
            "owner",
            "host",
            "reaper",
            "adopter",
            "kill",
            "cancel",
            "reboot",
            "power",
            "full",
            "room",
        ),
        *("down", "up", "wall", "sleep"),
    }
    struck = {kind for one in schedules for (hook, _), kind in one.faults.items() if hook != "stop"}
    assert struck == set(KINDS)
    traps = {trap for one in schedules for traps in one.traps.values() for trap in traps.values()}
    assert traps == {"kill", "enospc", "eio", "preempt", "cancel"}
    assert any(sum(event in {"owner", "host"} for _, event in one.events) > 2 for one in schedules)
    assert {one.mode for one in schedules} == {"server", "tool"}
    assert {one.keeps for one in schedules} == {True, False}
    assert {one.faults.get(("stop", 1)) for one in schedules} == {None, *HONEST}


def test_the_machine_answers_every_call_that_the_ledger_makes() -> None:
    used = set()
    for path in Path(vfs.__file__).parent.glob("*.py"):
        for part in path.read_text().split("vfs.")[1:]:
            name = part.split("(")[0]
            if name.isidentifier() and path.name != "vfs.py":
                used.add(name)
    answered = set(World.make(0, "server", {}).machine.calls())
    # `awake_time` is made of `monotonic`, and macOS alone needs the other one.
    assert used - answered == {"awake_time", "file_control"}
    assert answered <= used
    assert Machine.__name__ == "Machine"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["server", "tool"])
def test_every_kind_of_fault_strikes(mode: Mode, kind: Kind) -> None:
    simulation = Simulation(Schedule(0, mode, {("prepare", 1): kind}), Stage(), traced=True)
    assert simulation.run() == []
    trace = "\n".join(simulation.world.trace or ())
    assert f": {kind}\n" in trace
    comes = "comes to light" in trace
    died = "w-o0" in trace or "r-o0" in trace
    assert comes == (kind not in {"before", "kill", "lie"} and (mode, kind) != ("tool", "cancel"))
    if kind in {"kill", "kill-after", "late"}:
        assert died
    if kind == "late":
        # It comes after its owner's death, which is what the settle time and the op-lock are for.
        assert trace.index("comes to light") > trace.index(": late\n")


def test_a_router_that_lives_on_leaves_no_limbo_behind() -> None:
    """Found by schedule 90887: a request for a reap was not made when the session had failed."""
    run(Schedule(0, "server", {("prepare", 1): "after"}, events=((0.0, "host"),)))


def test_a_router_that_closes_while_a_reaper_fails_hands_over() -> None:
    """Found by schedule 96976: the warden was sent home, since the reaper had taken the entry."""
    faults: dict[tuple[str, int], Kind] = {
        ("prepare", 1): "after", ("list_instances", 2): "hang", ("list_instances", 3): "kill"
    }  # fmt: skip
    run(Schedule(0, "server", faults, events=((0.0, "host"),)))


def test_a_reaper_that_fails_just_as_another_looks_is_not_the_last() -> None:
    """Found by schedule 1021421: what another reaper had at first was taken for settled."""
    faults: dict[tuple[str, int], Kind] = {("prepare", 1): "hang", ("list_instances", 3): "kill"}
    for seed in range(EXHAUSTIVE, EXHAUSTIVE + 20):
        run(Schedule(seed, "server", faults, {3: {8: "preempt"}}))


def test_a_cancellation_at_the_very_end_hides_no_failure() -> None:
    """Found by schedule 3114831: the limits of snapshots were seen to, and then cancelled."""
    faults: dict[tuple[str, int], Kind] = {
        ("execute", 1): "cancel", ("stop", 1): "before", ("teardown", 1): "cancel",
        ("list_instances", 1): "hang",
    }  # fmt: skip
    run(Schedule(0, "server", faults, keeps=True))


def test_a_warden_does_not_rely_on_a_reaper_that_is_at_work() -> None:
    """Somebody's reaper hangs with the entry, and is killed when the warden has seen it busy."""
    faults: dict[tuple[str, int], Kind] = {("start", 1): "kill", ("teardown", 1): "hang"}
    events: tuple[tuple[float, Event], ...] = ((0.0, "owner"), (0.03, "reaper"), (2.0, "kill"))
    for seed in range(EXHAUSTIVE, EXHAUSTIVE + 60):
        run(Schedule(seed, "server", faults, events=events))


# What the simulation is worth: with one part of the protocol taken out, it must fail.


async def _unsettled(lease: object, settle: float, *, appeared: bool) -> float:
    return 0.0


async def _unverified(backend: Any, instance: Any, lease: object, seconds: float) -> bool:
    async with asyncio.timeout(seconds):
        await backend.teardown(instance)
    return False


async def _unshielded(work: Any, patience: float = 0) -> Any:
    return await work


def _opened(path: Path, operation: int | None) -> int | None:
    try:
        descriptor = lifeline.open_kept(lambda: vfs.open_file(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    if operation is not None:
        try:
            vfs.flock(descriptor, operation)
        except BlockingIOError:
            lifeline.close(descriptor)
            return None
    return descriptor


async def _quiet(self: session.Session, error: BaseException | None) -> None:
    if self._lease is not None:
        with contextlib.suppress(Exception):
            await persist(self._teardown(self._lease))


async def _too_early(relay: Any, instance: Any, lease: Any, seconds: float, limit: float) -> None:
    lease.hold(seconds)
    async with asyncio.timeout(limit):
        await relay.stop(instance)
    lease.abandon()


def _nothing(*arguments: object, **named: object) -> None:
    """Do nothing in place of what matters."""


BUGS: dict[str, tuple[str, int, object, str, Callable[..., Any]]] = {
    "no op-lock": ("S3", TOTAL, locks, "lock_op", _nothing),
    "no settle time": ("S3", 0, teardown, "_remaining", _unsettled),
    "no verification": ("S3", 0, teardown, "_attempt", _unverified),
    "no shield": ("S4", 0, session, "persist", _unshielded),
    "no sync of the intent": ("S1", 0, durable, "sync_data", _nothing),
    "no sync of the directory": ("S1", 0, durable, "sync_directory", _nothing),
    "no lock at a claim": ("S2", 0, locks, "lock_existing", lambda path: _opened(path, None)),
    "failures kept quiet": ("S4", 0, session.Session, "_end", _quiet),
    "a warden that does nothing at its owner's death": (
        "L1", 0, SimulatedWarden, "hand_over", _nothing
    ),
    "nothing that failed is tried again while its owner lives": (
        "L1", 413_778, Demand, "ended", _nothing
    ),
    "what is kept is not stopped first": ("S8", EXHAUSTIVE, session, "hold", _too_early),
    "what is kept is reaped": ("S8", EXHAUSTIVE, reaper, "held", lambda state, detail: False),
    "a snapshot is not noted": ("S8", EXHAUSTIVE, metadata, "write", _nothing),
    "no reap for what is in limbo": ("L1", EXHAUSTIVE, SimulatedWarden, "request_reap", _nothing),
}  # fmt: skip


def test_the_simulation_finds_a_lock_on_a_file_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = fcntl.LOCK_EX | fcntl.LOCK_NB
    monkeypatch.setattr(locks, "lock_existing", lambda path: _opened(path, lock))
    broken = []
    for schedule in two_reapers("tool", "preempt"):
        try:
            run(schedule)
        except Broken as error:
            broken.append(str(error).splitlines()[1])
    assert broken
    assert all(line.startswith("  S2 at ") for line in broken)


@pytest.mark.parametrize("bug", BUGS)
def test_the_simulation_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, start, place, name, instead = BUGS[bug]
    monkeypatch.setattr(place, name, instead)
    with pytest.raises(Broken, match=rf"--claw-seed=\d+\n  {rule} at "):
        search(12_000, start)
