"""What is noted of snapshots and what runtimes list are brought together; what is too much goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from claw_core import events, metadata
from claw_core.config.settings import Duration, Retention, Size
from claw_core.errors import RuntimeFault, UnknownRuntime
from claw_core.intent import Intent
from claw_core.keeping import Keeping
from claw_core.ledger import Ledger
from claw_core.metadata import Metadata
from claw_core.relay import Relay
from claw_core.snapshots import Kept, Snapshots, excess
from core.test_keeping import Keeper, fail, once
from core.test_session import Model

INSTANCE = "claw-00000000-000000000001"


def noted(name: str | None = "a", **changes: Any) -> Metadata:
    base = Metadata(INSTANCE, "run", "model", {}, None, None, 1.0, time.time(), name)
    return attrs.evolve(base, **changes)


class Shelf:
    """A keeper, a state directory, and both seen as snapshots."""

    def __init__(self, state: Path) -> None:
        self.keeper = Keeper({})
        self.ledger = Ledger.open(state)
        self.state = state
        self.places: list[tuple[str, Mapping[str, Any]]] = []

    def resolve(self, name: str, settings: Mapping[str, Any]) -> Relay:
        if name == "absent":
            raise UnknownRuntime("no runtime 'absent' is installed")
        return Relay(name, Model({}) if name == "plain" else self.keeper)

    def have(self, *known: Metadata) -> None:
        """Note snapshots, and let the keeper have those that have a name."""
        for one in known:
            metadata.write(self.state, one)
            if one.name is not None:
                self.keeper.snapshots[one.name] = one.instance

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.ledger, self.resolve, self.places)

    def find(self) -> list[Kept]:
        return asyncio.run(self.snapshots.find())[0]


@pytest.fixture
def shelf(state: Path) -> Shelf:
    return Shelf(state)


def test_they_are_found_the_newest_first_with_their_sizes(shelf: Shelf) -> None:
    shelf.have(noted("a", label="a", taken=5.0), noted("b", label="b", taken=9.0))
    found = shelf.find()
    assert [(kept.known.name, kept.state, kept.known.size) for kept in found] == [
        ("b", "kept", 7),
        ("a", "kept", 7),
    ]


def test_what_its_runtime_does_not_have_or_cannot_say_is_told_apart(shelf: Shelf) -> None:
    shelf.have(noted("a", label="a"), noted("b", label="b", runtime="absent"))
    shelf.keeper.snapshots.clear()
    states = {kept.known.name: (kept.state, kept.remark) for kept in shelf.find()}
    assert states == {
        "a": ("missing", "model does not have it any more"),
        "b": ("unknown", "no runtime 'absent' is installed"),
    }


def test_what_is_listed_and_not_noted_is_found_and_is_nobodys_to_retain(shelf: Shelf) -> None:
    shelf.places = [("model", {}), ("plain", {}), ("absent", {})]
    shelf.keeper.snapshots["lost"] = INSTANCE
    (kept,) = shelf.find()
    assert (kept.known.name, kept.known.instance, kept.noted) == ("lost", INSTANCE, False)
    assert asyncio.run(shelf.snapshots.retain(Retention(keep=1, max_age=Duration(1.0)))) == []
    assert shelf.keeper.snapshots == {"lost": INSTANCE}
    asyncio.run(shelf.snapshots.delete(kept))
    assert shelf.keeper.snapshots == {}


def test_what_a_dead_owner_left_unfinished_is_settled(shelf: Shelf) -> None:
    shelf.have(noted(None))
    shelf.keeper.snapshots["here"] = INSTANCE
    (kept,) = shelf.find()
    assert (kept.known.name, kept.known.size, kept.state) == ("here", 7, "kept")
    assert metadata.read(shelf.state)[0][0].name == "here"
    metadata.forget(shelf.state, kept.known)
    shelf.keeper.snapshots.clear()
    shelf.have(noted(None))
    assert shelf.find() == []
    assert metadata.read(shelf.state) == ([], [])


def test_what_an_owner_is_about_to_finish_is_left_to_it(shelf: Shelf) -> None:
    lease = shelf.ledger.acquire(Intent.new(shelf.ledger.install, "model"))
    with lease:
        shelf.have(noted(None, instance=lease.name))
        shelf.keeper.snapshots["here"] = lease.name
        (kept,) = shelf.find()
        assert (kept.known.name, kept.state) == (None, "unfinished")
        assert metadata.read(shelf.state)[0][0].name is None


def test_an_owner_that_has_finished_while_we_looked_is_not_overruled(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noted without a name, and is finished when the entries are looked at."""
    shelf.have(noted(None))
    scan = Ledger.scan

    def late(self: Ledger, **options: bool) -> Any:
        shelf.have(noted("here", exit=3))
        return scan(self, **options)

    monkeypatch.setattr(Ledger, "scan", late)
    (kept,) = shelf.find()
    assert (kept.known.name, kept.known.exit, kept.state) == ("here", 3, "kept")


def test_it_is_deleted_before_it_is_forgotten(shelf: Shelf) -> None:
    shelf.have(noted("a"))
    (kept,) = shelf.find()

    class Stubborn(Keeper):
        async def delete_snapshot(self, name: str) -> None:
            """Say yes."""

    stubborn = Stubborn({})
    stubborn.snapshots, shelf.keeper = shelf.keeper.snapshots, stubborn
    with pytest.raises(RuntimeFault, match="still there"):
        asyncio.run(shelf.snapshots.delete(kept))
    assert metadata.read(shelf.state)[0] == [attrs.evolve(kept.known, size=None)]
    shelf.keeper = Keeper({})
    asyncio.run(shelf.snapshots.delete(kept))
    assert metadata.read(shelf.state)[0] == []


def test_what_is_missing_is_only_forgotten(shelf: Shelf) -> None:
    """A listing may miss what is there; nothing is deleted for that."""
    shelf.have(noted("a", taken=1.0))
    real = shelf.keeper.snapshots
    shelf.keeper.snapshots = {}
    (kept,) = shelf.find()
    shelf.keeper.snapshots = real
    asyncio.run(shelf.snapshots.delete(kept))
    assert real == {"a": INSTANCE}
    assert metadata.read(shelf.state)[0] == []


def all_of(*names: str, **changes: Any) -> list[Kept]:
    now = time.time()
    return [
        Kept(noted(name, taken=now - number, **changes), "kept")
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("limits", "changes", "gone"),
    [
        (Retention(), {}, []),
        (Retention(keep=2), {}, ["c", "d"]),
        (Retention(keep=1), {}, ["b", "c", "d"]),
        (Retention(max_age=Duration(1.5)), {}, ["c", "d"]),
        (Retention(max_disk=Size(25)), {"size": 10}, ["c", "d"]),
        (Retention(max_disk=Size(1)), {"size": 10}, ["b", "c", "d"]),
        (Retention(max_disk=Size(1)), {"size": None}, []),
    ],
)
def test_what_is_too_much(limits: Retention, changes: dict[str, Any], gone: list[str]) -> None:
    found = all_of("a", "b", "c", "d", **changes)
    assert [kept.known.name for kept, _ in excess(found, limits, time.time())] == gone


def test_the_newest_is_never_too_much_and_what_is_missing_is_forgotten() -> None:
    limits = Retention(keep=1, max_age=Duration(1.0), max_disk=Size(1))
    (newest,) = all_of("a", size=10)
    old = attrs.evolve(newest, known=attrs.evolve(newest.known, taken=1.0))
    assert list(excess([old], limits, time.time())) == []
    missing = attrs.evolve(newest, state="missing", remark="gone")
    assert list(excess([missing, newest], limits, time.time())) == []
    missing = attrs.evolve(old, state="missing", remark="gone")
    assert list(excess([newest, missing], limits, time.time())) == [(missing, "gone")]


def test_after_each_snapshot_the_oldest_goes_and_that_is_said(shelf: Shelf, state: Path) -> None:
    shelf.have(*(noted(f"s{number}", label=f"{number}", taken=number) for number in range(12)))
    opened = asyncio.run(once(shelf.keeper, Keeping(snapshot="always")))
    said = [one.text for one in opened.seen if isinstance(one, events.Notice)]
    deleted = [text.split()[2] for text in said if "is deleted" in text]
    # All of the twelve are older than 30 days; the new one is there.
    assert sorted(deleted) == sorted(f"s{number}" for number in range(12))
    (new,) = shelf.keeper.snapshots
    assert [one.name for one in metadata.read(state)[0]] == [new]


def test_a_snapshot_that_cannot_be_deleted_is_said_and_stays(shelf: Shelf, state: Path) -> None:
    class Busy(Keeper):
        async def delete_snapshot(self, name: str) -> None:
            await fail(RuntimeFault("it is in use"))()

    shelf.keeper = Busy({})
    shelf.have(noted("old", taken=1.0))
    opened = asyncio.run(once(shelf.keeper, Keeping(snapshot="always")))
    said = " ".join(one.text for one in opened.seen if isinstance(one, events.Notice))
    assert "the snapshot old cannot be deleted" in said
    assert "it is in use" in said
    assert {one.name for one in metadata.read(state)[0]} == {"old", *shelf.keeper.snapshots}
