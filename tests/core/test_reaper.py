from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest

from claw_core import failpoints, vfs
from claw_core.errors import UnknownRuntime
from claw_core.host import Host
from claw_core.ledger import Ledger
from claw_core.model import Instance, Spec
from claw_core.reaper import Reaper
from claw_core.teardown import Outcome, destroy
from core import model_backend as model
from core.model_backend import child, ended, intent, kill, lifecycle, orphan, reap, until
from kills.harness import tell


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    return tmp_path / "world"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "state")


def clean(ledger: Ledger, world: Path) -> bool:
    return os.listdir(ledger.directory) == [] == os.listdir(world)


def test_a_dead_owners_instance_is_torn_down_and_forgotten(ledger: Ledger, world: Path) -> None:
    name = orphan(ledger, world).name
    assert reap(ledger.state) == [Outcome(name, "model", "gone")]
    assert clean(ledger, world)
    assert reap(ledger.state) == []


def test_a_live_owners_instance_is_left_alone(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        model.create(world, lease.name)
        assert [one.result for one in reap(ledger.state)] == ["alive"]
        assert os.listdir(world) == [lease.name]


def test_what_is_not_in_the_ledger_is_left_alone(ledger: Ledger, world: Path) -> None:
    orphan(ledger, world)
    others = {f"claw-{ledger.install}-0123456789ab", "claw-00000000-0123456789ab", "unrelated"}
    for name in others:
        model.create(world, name)
    reap(ledger.state)
    assert set(os.listdir(world)) == others


def test_unclaimed_instances_are_planned_and_adopted(ledger: Ledger, world: Path) -> None:
    dead = orphan(ledger, world).name
    lost = f"claw-{ledger.install}-0123456789ab"
    for name in (lost, "claw-00000000-0123456789ab"):
        model.create(world, name)
    reaper = Reaper(ledger, model.resolve, [("model", {"world": str(world), "wide": True})])
    before = sorted(os.listdir(world)), sorted(os.listdir(ledger.directory))
    plans = {plan.name: plan.result for plan in asyncio.run(reaper.plan())}
    assert plans == {dead: "delete", lost: "adopt"}
    assert (sorted(os.listdir(world)), sorted(os.listdir(ledger.directory))) == before
    outcomes = asyncio.run(reaper.reap(10, adopt=True))
    assert {one.name: one.result for one in outcomes} == {dead: "gone", lost: "gone"}
    assert os.listdir(world) == ["claw-00000000-0123456789ab"]


def test_a_plan_says_why(ledger: Ledger, world: Path) -> None:
    orphan(ledger, world)
    with ledger.acquire(intent(ledger, world)) as kept:
        kept.hold(60)
    (ledger.directory / "junk.jsonl").touch()
    with ledger.acquire(intent(ledger, world)):
        plans = asyncio.run(Reaper(ledger, model.resolve).plan())
    assert sorted(plan.result for plan in plans) == ["delete", "keep", "keep", "repair"]
    assert all(plan.error for plan in plans)


def test_a_kept_instance_is_skipped_until_its_time_is_over(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        model.create(world, lease.name)
        lease.hold(0.3)
    assert [one.result for one in reap(ledger.state)] == ["held"]
    assert os.listdir(world) == [lease.name]
    time.sleep(0.35)
    assert [one.result for one in reap(ledger.state)] == ["gone"]
    assert clean(ledger, world)


def test_a_kept_instance_is_torn_down_when_it_is_named_and_no_other(
    ledger: Ledger, world: Path
) -> None:
    names = []
    for _ in range(2):
        with ledger.acquire(intent(ledger, world)) as lease:
            model.create(world, lease.name)
            lease.hold(60)
            names.append(lease.name)
    dead = orphan(ledger, world).name
    chosen = {names[0]}
    (plan,) = asyncio.run(Reaper(ledger, model.resolve).plan(chosen))
    assert (plan.name, plan.result) == (names[0], "delete")
    assert reap(ledger.state, chosen=chosen) == [Outcome(names[0], "model", "gone")]
    assert sorted(os.listdir(world)) == sorted([names[1], dead])


def test_a_failing_teardown_is_quarantined_and_can_be_retried(ledger: Ledger, world: Path) -> None:
    orphan(ledger, world, broken=True)
    (outcome,) = reap(ledger.state, 0.5)
    assert (outcome.result, outcome.error) == ("quarantined", "the model is broken")
    (entry,) = ledger.scan()
    assert (entry.state, entry.alive) == ("quarantined", False)
    assert entry.detail == {"error": "the model is broken"}
    reaper = Reaper(ledger, lambda _, settings: model.ModelRuntime({"world": str(world)}))
    assert [one.result for one in asyncio.run(reaper.reap(5))] == ["gone"]
    assert clean(ledger, world)


def test_a_teardown_that_says_nothing_and_does_nothing_is_found_out(
    ledger: Ledger, world: Path
) -> None:
    orphan(ledger, world, deaf=True)
    (outcome,) = reap(ledger.state, 0.5)
    assert outcome.result == "quarantined"
    assert "still there" in (outcome.error or "")


def test_a_hanging_teardown_does_not_stop_the_others(ledger: Ledger, world: Path) -> None:
    for _ in range(3):
        orphan(ledger, world, slow=60)
    for _ in range(3):
        orphan(ledger, world)
    outcomes = reap(ledger.state, 0.7)
    assert sorted(one.result for one in outcomes) == ["gone"] * 3 + ["quarantined"] * 3
    assert all("not torn down" in (one.error or "gone") for one in outcomes if one.error)


def test_an_unusable_runtime_is_quarantined_with_its_error(ledger: Ledger, world: Path) -> None:
    def resolve(name: str, settings: object) -> model.ModelRuntime:
        raise UnknownRuntime(f"no runtime {name}")

    orphan(ledger, world)
    (outcome,) = asyncio.run(Reaper(ledger, resolve).reap(5))
    assert outcome == Outcome(outcome.name, "model", "quarantined", "no runtime model")


def test_a_damaged_entry_neither_disappears_nor_stops_the_others(
    ledger: Ledger, world: Path
) -> None:
    orphan(ledger, world)
    (ledger.directory / f"{'0' * 32}.jsonl").write_bytes(b"{")
    assert sorted(one.result for one in reap(ledger.state)) == ["gone", "unreadable"]
    assert os.listdir(ledger.directory) == [f"{'0' * 32}.jsonl"]


def test_cancelling_a_reap_leaves_every_entry_claimable(ledger: Ledger, world: Path) -> None:
    for _ in range(12):
        orphan(ledger, world, slow=60)

    async def cancelled() -> None:
        task = asyncio.create_task(Reaper(ledger, model.resolve).reap(60))
        await asyncio.sleep(0.2)
        assert all(entry.alive for entry in ledger.scan())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = len(os.listdir("/dev/fd"))
    asyncio.run(cancelled())
    assert len(os.listdir("/dev/fd")) == before
    assert not any(entry.alive for entry in ledger.scan())
    assert len(ledger.scan()) == 12


def test_a_creation_that_comes_to_light_late_is_caught(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        lease = ledger.acquire(intent(ledger, world, settle=1.5))
        model.create_late(world, lease.name, 0.7)
        os.kill(os.getpid(), 9)

    assert ended(child(owner)) == -9
    # The server is a fork, which has the lease until it has come to close it.
    until(lambda: not ledger.scan()[0].alive)
    started = time.monotonic()
    (outcome,) = reap(ledger.state)
    assert outcome.result == "gone"
    assert time.monotonic() - started > 2  # it appeared, so the absence counts from then on
    assert clean(ledger, world)


def test_limbo_outlasts_a_reaper_and_a_later_one_carries_on(ledger: Ledger, world: Path) -> None:
    orphan(ledger, world, settle=1.0)
    (outcome,) = reap(ledger.state, 0.2)
    assert outcome.result == "limbo"
    (entry,) = ledger.scan()
    since = entry.detail["since"]
    assert (entry.state, entry.alive, entry.detail["boot"]) == ("limbo", False, vfs.boot_id())
    assert os.listdir(world) == []
    (outcome,) = reap(ledger.state, 0.2)
    assert outcome.result == "limbo"
    assert ledger.scan()[0].detail["since"] == since
    time.sleep(max(0.0, since + 1.01 - vfs.awake_time()))
    (outcome,) = reap(ledger.state, 0.5)
    assert outcome.result == "gone"
    assert clean(ledger, world)


def test_limbo_counts_anew_after_a_reboot_and_after_an_appearance(
    ledger: Ledger, world: Path
) -> None:
    name = orphan(ledger, world, settle=5.0).name
    reap(ledger.state, 0.2)
    lease = ledger.claim(ledger.scan()[0])
    assert lease is not None
    lease.mark("limbo", boot="another", since=0.0)
    lease.abandon()
    assert [one.result for one in reap(ledger.state, 0.2)] == ["limbo"]
    assert ledger.scan()[0].detail["since"] > 0
    lease = ledger.claim(ledger.scan()[0])
    assert lease is not None
    lease.mark("limbo", boot=vfs.boot_id(), since=vfs.awake_time() + 1e6)  # no clock says that
    lease.abandon()
    assert [one.result for one in reap(ledger.state, 0.2)] == ["limbo"]
    assert ledger.scan()[0].detail["since"] <= vfs.awake_time()
    lease = ledger.claim(ledger.scan()[0])
    assert lease is not None
    lease.mark("limbo", boot=vfs.boot_id(), since=0.0)
    lease.abandon()
    model.create(world, name)
    assert [one.result for one in reap(ledger.state, 0.2)] == ["limbo"]
    assert os.listdir(world) == []


@pytest.mark.parametrize("clock", ["boottime", "wall_clock"])
def test_limbo_does_not_count_a_sleep_of_the_machine(
    ledger: Ledger, world: Path, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan(ledger, world, settle=5.0)
    assert [one.result for one in reap(ledger.state, 0.2)] == ["limbo"]
    now = getattr(vfs, clock)
    monkeypatch.setattr(vfs, clock, lambda: now() + 1e6)
    assert [one.result for one in reap(ledger.state, 0.2)] == ["limbo"]


def test_a_child_in_flight_is_waited_for(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        lease = ledger.acquire(intent(ledger, world))
        subprocess.Popen(
            ["sh", "-c", f"sleep 0.5; mkdir {world / lease.name}"], pass_fds=(lease.op_lock(),)
        )
        os.kill(os.getpid(), 9)

    assert ended(child(owner)) == -9
    assert [one.result for one in reap(ledger.state, 0.2)] == ["busy"]
    assert [one.result for one in reap(ledger.state)] == ["gone"]
    assert clean(ledger, world)


def test_the_owners_own_destruction_ends_the_lease_whatever_comes(
    ledger: Ledger, world: Path
) -> None:
    async def run(settle: float, **settings: object) -> Outcome:
        lease = ledger.acquire(intent(ledger, world))
        model.create(world, lease.name)
        instance = Instance(lease.name, Spec(), Host(lease, "model"))
        backend = model.ModelRuntime({"world": str(world), **settings})
        outcome = await destroy(backend, instance, lease, deadline=0.3, settle=settle)
        assert not lease.held
        return outcome

    assert asyncio.run(run(0.0)).result == "gone"
    assert clean(ledger, world)
    assert asyncio.run(run(60.0)).result == "limbo"
    assert asyncio.run(run(0.0, broken=True)).result == "quarantined"
    assert sorted(entry.state for entry in ledger.scan()) == ["limbo", "quarantined"]
    assert not any(entry.alive for entry in ledger.scan())


def test_more_dead_entries_than_may_be_open_at_a_time(ledger: Ledger, world: Path) -> None:
    for _ in range(300):
        orphan(ledger, world)
    pids = [child(lambda: reap(ledger.state)) for _ in range(2)]
    assert [ended(pid) for pid in pids] == [0, 0]
    reap(ledger.state)
    assert clean(ledger, world)


POINTS = {
    "lifecycle": [name for name in failpoints.POINTS if re.match(r"ledger\.(?!post-claim)", name)],
    "reap": [
        name
        for name in failpoints.POINTS
        if re.match(
            r"reaper\.|teardown\.|ledger\.(post-claim|.*mark|pre-release|post-unlink)", name
        )
    ],
}


def test_every_point_is_passed(ledger: Ledger, world: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ended(child(lambda: lifecycle(ledger.state, world), log=log)) == 0
    assert set(POINTS["lifecycle"]) == set(log.read_text().split())
    orphan(ledger, world, settle=0.1)
    log.unlink()
    assert ended(child(lambda: reap(ledger.state), log=log)) == 0
    assert set(POINTS["reap"]) == set(log.read_text().split())
    assert {name for name in failpoints.POINTS if re.match(r"ledger|reaper|teardown", name)} == {
        *POINTS["lifecycle"],
        *POINTS["reap"],
    }
    assert clean(ledger, world)


def crash(ledger: Ledger, world: Path, point: str, reaping: str, kills: int, settle: float) -> int:
    """Kill an owner at a point, a reaper at another, let two more loose; count the kills."""
    count = 0
    status = ended(
        child(lambda: lifecycle(ledger.state, world, settle), f"{point}={kills}*off->kill")
    )
    assert status in {0, -9}
    count += status == -9
    if status == 0:
        orphan(ledger, world, settle)
    status = ended(child(lambda: reap(ledger.state), f"{reaping}=kill"))
    assert status in {0, -9}
    count += status == -9
    reapers = [child(lambda: reap(ledger.state)) for _ in range(2)]
    assert [ended(pid) for pid in reapers] == [0, 0]
    assert clean(ledger, world), (point, reaping, kills, settle, os.listdir(ledger.directory))
    return count


@pytest.mark.parametrize("point", POINTS["lifecycle"])
def test_nothing_is_left_after_a_kill_at_any_point_of_owner_and_reaper(
    ledger: Ledger, world: Path, point: str
) -> None:
    killed = sum(crash(ledger, world, point, reaping, 0, 0.0) for reaping in POINTS["reap"])
    assert killed >= len(POINTS["reap"])


@pytest.mark.parametrize("reaping", POINTS["reap"])
def test_nothing_is_left_after_a_kill_at_any_point_of_limbo(
    ledger: Ledger, world: Path, reaping: str
) -> None:
    assert crash(ledger, world, "ledger.post-mark", reaping, 0, 0.06) == 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nothing_is_left_after_many_kills(ledger: Ledger, world: Path) -> None:
    seed = int(os.environ.get("CLAW_SEED", random.randrange(1 << 32)))
    print(f"CLAW_SEED={seed}")
    chance = random.Random(seed)
    kills = rounds = 0
    while kills < int(os.environ.get("CLAW_MODEL_KILLS", "1000")):
        rounds += 1
        kills += crash(
            ledger,
            world,
            chance.choice(POINTS["lifecycle"]),
            chance.choice(POINTS["reap"]),
            chance.randrange(3),
            chance.choice([0.0, 0.0, 0.0, 0.03]),
        )
    tell("kills", where="model", kills=kills, rounds=rounds, seed=seed, leaks=0)


def test_a_reaper_that_is_killed_again_and_again_still_gets_there(
    ledger: Ledger, world: Path
) -> None:
    for _ in range(20):
        orphan(ledger, world)
    for _ in range(10):
        pid = child(lambda: reap(ledger.state))
        time.sleep(0.005)
        try:
            kill(pid)
        except AssertionError:
            break
    until(lambda: reap(ledger.state) == [])
    assert clean(ledger, world)
