"""Owners that keep something are killed at every point: it is kept with its entry, or gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from claw_core import failpoints, keeping, metadata, snapshots
from claw_core.host import Host
from claw_core.isolation import Isolation
from claw_core.ledger import Ledger
from claw_core.model import Assessment, Audit, Instance, Snapshot, SnapshotTarget, Spec
from claw_core.reaper import Reaper
from claw_core.relay import Relay
from claw_core.routing import Route
from claw_core.runs import Record
from core import model_backend as model
from core.model_backend import child, ended, intent

POINTS = sorted(name for name in failpoints.POINTS if name.startswith(("keep.", "snapshot.")))
OWNERS = [name for name in POINTS if name not in {"snapshot.deleted", "snapshot.forgotten"}]
REAPER = ("reaper.claimed", "teardown.pre-delete", "ledger.pre-release", "ledger.post-unlink")


class Keeper(model.ModelRuntime):
    """Instances that run have a file `running`; a snapshot is a directory of its own."""

    async def start(self, instance: Instance) -> None:
        (self.world / instance.name / "running").touch()

    async def stop(self, instance: Instance) -> None:
        (self.world / instance.name / "running").unlink()

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        assert isinstance(target, Audit)
        name = f"snapshot-{instance.name}-{target.slug}"
        (self.world / name).mkdir()
        return name

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        prefix = f"snapshot-claw-{install}-"
        names = [name for name in os.listdir(self.world) if name.startswith(prefix)]
        return frozenset(Snapshot(name, name[9:].rpartition("-")[0], 1) for name in names)

    async def delete_snapshot(self, name: str) -> None:
        model.delete(self.world, name)


def resolve(name: str, settings: Mapping[str, Any]) -> Relay:
    return Relay(name, Keeper(settings))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    return tmp_path / "world"


def own(state: Path, world: Path) -> None:
    """Keep a snapshot, and then the instance."""

    async def life() -> None:
        ledger = Ledger.open(state)
        lease = ledger.acquire(intent(ledger, world))
        relay = resolve("model", {"world": str(world)})
        instance = Instance(lease.name, Spec(persistent=True), Host(lease, "model"))
        route = Route("model", relay.settings, Assessment(Isolation.VM), "a test")
        record = Record(lease.name, None, route, 1.0)
        await relay.prepare(instance)
        await relay.start(instance)
        await keeping.take(relay, instance, Audit("a"), record, {}, state, lambda _: None)
        await keeping.hold(relay, instance, lease, 60.0, 5.0)

    asyncio.run(life())


def reap(state: Path, chosen: set[str] = set()) -> list[str]:  # noqa: B006 - it is only read
    reaper = Reaper(Ledger.open(state), resolve)
    return [one.result for one in asyncio.run(reaper.reap(20.0, chosen=chosen))]


def kept(state: Path, world: Path) -> list[str]:
    """The instances that are kept; nothing of them runs."""
    names = [entry.name for entry in Ledger.open(state).scan() if entry.state == "held"]
    for name in names:
        assert name is not None
        assert os.listdir(world / name) == ["disk"]
    return [str(name) for name in names]


def there(world: Path, prefix: str) -> list[str]:
    return sorted(name for name in os.listdir(world) if name.startswith(prefix))


def shelf(state: Path, world: Path) -> snapshots.Snapshots:
    return snapshots.Snapshots(Ledger.open(state), resolve, [("model", {"world": str(world)})])


def delete_all(state: Path, world: Path) -> None:
    async def work() -> None:
        found, problems = await shelf(state, world).find()
        assert problems == []
        for one in found:
            await shelf(state, world).delete(one)

    asyncio.run(work())


def test_every_point_is_passed(state: Path, world: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ended(child(lambda: own(state, world), log=log)) == 0
    assert ended(child(lambda: delete_all(state, world), log=log)) == 0
    assert set(POINTS) <= set(log.read_text().split())


@pytest.mark.parametrize("point", OWNERS)
def test_a_kill_of_the_owner_leaves_what_is_kept_or_nothing(
    state: Path, world: Path, point: str
) -> None:
    assert ended(child(lambda: own(state, world), f"{point}=kill")) == -9
    reap(state)
    names = kept(state, world)
    assert there(world, "claw-") == names
    assert (names != []) == (point == "keep.held")
    # Whatever snapshot there is can be found, and is noted; and nothing else is.
    found, _ = asyncio.run(shelf(state, world).find())
    assert [one.known.name for one in found] == there(world, "snapshot-")
    assert [one.name for one in metadata.read(state)[0]] == there(world, "snapshot-")
    assert (found != []) == (point != "snapshot.intended")
    delete_all(state, world)
    reap(state, set(names))
    assert os.listdir(world) == []
    assert os.listdir(state / "instances") == []
    assert os.listdir(state / "snapshots") == []


@pytest.mark.parametrize("point", ["snapshot.deleted", "snapshot.forgotten"])
def test_a_kill_of_who_deletes_is_followed_by_another(state: Path, world: Path, point: str) -> None:
    assert ended(child(lambda: own(state, world))) == 0
    assert ended(child(lambda: delete_all(state, world), f"{point}=kill")) == -9
    assert there(world, "snapshot-") == []
    delete_all(state, world)
    assert metadata.read(state)[0] == []


@pytest.mark.parametrize("point", REAPER)
def test_a_kill_of_who_deletes_what_is_kept_is_followed_by_any_reaper(
    state: Path, world: Path, point: str
) -> None:
    assert ended(child(lambda: own(state, world))) == 0
    (name,) = kept(state, world)
    assert reap(state) == ["held"]
    assert ended(child(lambda: reap(state, {name}), f"{point}=kill")) == -9
    # Killed before anything was done, it is still kept; later it is never taken for that.
    untouched = point == "reaper.claimed"
    assert reap(state) == (["held"] if untouched else ["gone"] if point != REAPER[-1] else [])
    assert (there(world, "claw-") == [name]) == untouched
