"""What is kept at the end of a session, when, and what happens where that cannot be."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claw_core import durable, events, metadata, vfs
from claw_core.errors import (
    ClawError,
    LedgerUnavailable,
    NotKept,
    Refused,
    RuntimeFault,
    TeardownFailed,
)
from claw_core.keeping import Keeping
from claw_core.ledger import Ledger
from claw_core.model import (
    IO,
    Audit,
    Command,
    Exit,
    Image,
    Instance,
    Refusal,
    Snapshot,
    SnapshotTarget,
    Spec,
)
from claw_core.reaper import Reaper
from claw_core.session import Deadlines
from core.test_session import Model, Opened, left


class Keeper(Model):
    """Keeps snapshots in memory, and stops instances."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.snapshots: dict[str, str] = {}
        self.texts: tuple[str, ...] = ()
        self.found: frozenset[str] = frozenset()
        self.spec = Spec()

    async def prepare(self, instance: Instance) -> None:
        self.spec = instance.spec
        await super().prepare(instance)

    async def snapshot(self, instance: Instance, target: SnapshotTarget) -> str:
        await self._enter("snapshot")
        name = f"{instance.name}@{target.label if isinstance(target, Audit) else target.name}"
        self.snapshots[name] = instance.name
        return name

    async def list_snapshots(self, install: str) -> frozenset[Snapshot]:
        return frozenset(Snapshot(*item, 7) for item in self.snapshots.items())

    async def delete_snapshot(self, name: str) -> None:
        self.snapshots.pop(name, None)

    async def search(self, instance: Instance, texts: tuple[str, ...]) -> frozenset[str]:
        await self._enter("search")
        self.texts = texts
        return self.found

    async def stop(self, instance: Instance) -> None:
        await self._enter("stop")


@pytest.fixture
def keeper() -> Keeper:
    return Keeper({})


SNAPSHOT = Keeping(snapshot="always")
KEEP = Keeping(instance="always", seconds=60)


async def once(keeper: Keeper, keeping: Keeping, code: int = 0, **options: Any) -> Opened:
    """A session of one command that ends with a code."""

    async def work(command: Command, io: IO) -> Exit:
        return Exit(code)

    keeper.work = work
    async with Opened(keeper) as opened, opened.session(keeping=keeping, **options) as session:
        await session.run(["x"])
    return opened


def known(state: Path) -> metadata.Metadata:
    (found,), problems = metadata.read(state)
    assert problems == []
    return found


def record(state: Path) -> Any:
    return json.loads((state / "runs.jsonl").read_text().splitlines()[-1])


def fail(error: Exception) -> Callable[[], Any]:
    async def work() -> None:
        raise error

    return work


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("when", "code", "kept"),
    [
        ("never", 1, False),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("always", 0, True),
    ],
)
def test_it_is_kept_when_it_is_asked_for(
    keeper: Keeper, state: Path, when: Any, code: int, kept: bool
) -> None:
    asyncio.run(once(keeper, Keeping(snapshot=when), code))
    asyncio.run(once(keeper, Keeping(instance=when, seconds=60), code))
    assert keeper.calls.count("snapshot") == keeper.calls.count("stop") == kept
    assert keeper.calls.count("teardown") == (1 if kept else 2)
    assert [entry.state for entry in Ledger.open(state).scan()] == ["held"] * kept
    assert keeper.spec.persistent is (when != "never")


def test_a_run_that_ends_in_an_error_has_failed(keeper: Keeper) -> None:
    async def main() -> None:
        both = Keeping("on-failure", "on-failure")
        async with Opened(keeper) as opened, opened.session(keeping=both):
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert keeper.calls == ["prepare", "start", "snapshot", "stop"]


def test_what_never_started_is_not_kept(keeper: Keeper, state: Path) -> None:
    keeper.then["start"] = fail(RuntimeFault("no"))
    with pytest.raises(RuntimeFault):
        asyncio.run(once(keeper, Keeping("always", "always")))
    assert keeper.calls == ["prepare", "start", "teardown"]
    assert left(state) == []


def test_a_runtime_that_cannot_keep_is_no_candidate(model_without: Model) -> None:
    for keeping, why in ((SNAPSHOT, "keeps no snapshots"), (KEEP, "cannot keep an instance")):

        async def main(keeping: Keeping = keeping) -> None:
            async with Opened(model_without) as opened, opened.session(keeping=keeping):
                raise AssertionError

        with pytest.raises(Refused, match=why):
            asyncio.run(main())
    assert model_without.calls == []


@pytest.fixture
def model_without() -> Model:
    return Model({})


def test_what_is_known_of_a_snapshot_lies_beside_it(
    keeper: Keeper, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[metadata.Metadata] = []

    async def look() -> None:
        before.append(known(state))

    keeper.then["snapshot"] = look
    keeper.found = frozenset({"/b", "/a with s3cret-value"})
    secrets = {"TOKEN": "s3cret-value", "PIN": "1234"}
    opened = asyncio.run(
        once(keeper, SNAPSHOT, 3, group="finance", image="base:1", secrets=secrets)
    )
    found = known(state)
    assert found.name == f"{found.instance}@finance"
    assert (found.label, found.runtime, found.group) == ("finance", "model", "finance")
    assert (found.image, found.exit, found.size) == ("base:1", 3, 7)
    assert (found.searched, found.unsearched) == (("TOKEN",), None)
    assert found.found_in == ("/a with [secret TOKEN]", "/b")
    assert "s3cret-value" in keeper.texts
    assert not any("1234" in text for text in keeper.texts)
    # Before the snapshot it says that one may come.
    assert (before[0].name, before[0].instance) == (None, found.instance)
    assert b"s3cret-value" not in (state / "snapshots" / found.file).read_bytes()
    assert (state / "snapshots" / found.file).stat().st_mode & 0o777 == 0o600
    assert record(state)["snapshot"] == found.name
    (urgent,) = [one for one in opened.seen if isinstance(one, events.Notice) and one.urgent]
    assert "/a with [secret TOKEN], /b" in urgent.text
    assert "s3cret-value" not in urgent.text


def test_a_disk_that_cannot_be_searched_is_kept_and_said(keeper: Keeper, state: Path) -> None:
    keeper.then["search"] = fail(ClawError("there is no `grep`, s3cret-value"))
    opened = asyncio.run(once(keeper, SNAPSHOT, secrets={"TOKEN": "s3cret-value"}))
    assert known(state).name is not None
    assert known(state).unsearched == "there is no `grep`, [secret TOKEN]"
    assert known(state).searched == ()
    (urgent,) = [one for one in opened.seen if isinstance(one, events.Notice) and one.urgent]
    assert "was not searched" in urgent.text


def test_without_secrets_nothing_is_searched(keeper: Keeper, state: Path) -> None:
    asyncio.run(once(keeper, SNAPSHOT))
    assert "search" not in keeper.calls
    assert known(state).unsearched is None


def test_an_image_is_no_snapshot_for_inspection(keeper: Keeper, state: Path) -> None:
    async def main() -> None:
        async with Opened(keeper) as opened, opened.session() as session:
            assert (await session.snapshot(Image("mine"))).endswith("@mine")

    asyncio.run(main())
    assert metadata.read(state) == ([], [])
    assert record(state)["snapshot"] is None


def test_a_snapshot_that_fails_is_said_after_the_teardown(keeper: Keeper, state: Path) -> None:
    keeper.then["snapshot"] = fail(RuntimeFault("the disk is full", remedy="make room"))
    with pytest.raises(NotKept, match="the disk is full") as caught:
        asyncio.run(once(keeper, SNAPSHOT))
    assert caught.value.remedy == "make room"
    assert keeper.calls[-1] == "teardown"
    assert left(state) == []
    assert record(state)["error"] == "NotKept in snapshot"
    assert known(state).name is None  # nobody knows whether one comes to light


def test_nothing_to_note_it_in_means_no_snapshot(
    keeper: Keeper, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: Path, known: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(metadata, "write", full)
    with pytest.raises(NotKept, match="No space left"):
        asyncio.run(once(keeper, SNAPSHOT))
    assert "snapshot" not in keeper.calls
    assert left(state) == []


def test_no_failure_at_the_end_hides_another(keeper: Keeper) -> None:
    keeper.then["snapshot"] = fail(RuntimeFault("no snapshot"))
    keeper.then["stop"] = fail(RuntimeFault("no stop"))
    keeper.then["teardown"] = fail(RuntimeFault("no teardown"))

    async def main() -> None:
        async with (
            Opened(keeper) as opened,
            opened.session(keeping=Keeping("always", "always"), deadlines=Deadlines(teardown=0.2)),
        ):
            raise KeyError("the body's own")

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    kinds = [type(error) for error in caught.value.exceptions]
    assert kinds == [KeyError, NotKept, NotKept, TeardownFailed]


@pytest.mark.parametrize("during", ["execute", "snapshot"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_one_cancellation_waits_for_the_snapshot_and_two_do_not(
    keeper: Keeper, state: Path, during: str, times: int
) -> None:
    entered, going = asyncio.Event(), asyncio.Event()

    async def linger() -> None:
        entered.set()
        await going.wait()

    keeper.then[during] = linger

    async def main() -> None:
        task = asyncio.create_task(once(keeper, SNAPSHOT))
        await entered.wait()
        for _ in range(times):
            task.cancel()
        if during == "snapshot":
            await asyncio.sleep(0.02)
            going.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (keeper.snapshots != {}) is (times == 1)
    assert keeper.calls[-1] == "teardown"
    assert left(state) == []


def test_what_is_kept_is_stopped_first_and_reaped_at_its_time(keeper: Keeper, state: Path) -> None:
    async def look() -> None:
        (entry,) = Ledger.open(state).scan()
        assert (entry.state, entry.alive) == ("stopping", True)

    keeper.then["stop"] = look
    opened = asyncio.run(once(keeper, Keeping(instance="always", seconds=0.3)))
    (entry,) = Ledger.open(state).scan()
    assert (entry.state, entry.alive, entry.reapable) == ("held", False, False)
    assert record(state)["teardown"] == "held"
    assert record(state)["kept_until"] == pytest.approx(entry.detail["wall"], abs=0.001)
    (notice,) = [one.text for one in opened.seen if isinstance(one, events.Notice)]
    assert f"claw shell {entry.name}" in notice
    assert f"claw reap {entry.name}" in notice

    async def reap() -> list[str]:
        reaper = Reaper(Ledger.open(state), lambda name, settings: keeper)
        return [one.result for one in await reaper.reap(5)]

    async def expire() -> None:
        assert await reap() == ["held"]
        assert keeper.existing == {entry.name}
        while not Ledger.open(state).scan()[0].reapable:
            await asyncio.sleep(0.01)
        assert await reap() == ["gone"]

    asyncio.run(expire())
    assert keeper.existing == set()
    assert left(state) == []


@pytest.mark.parametrize("how", ["fails", "hangs", "is not durable"])
def test_what_cannot_be_kept_is_torn_down(
    keeper: Keeper, state: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"fails": "no", "hangs": "did not end in time", "is not durable": "cannot keep"}[how]
    if how == "is not durable":

        async def full() -> None:
            monkeypatch.setattr(
                durable, "sync_data", lambda _: os.stat(f"{state}/no/such/directory")
            )

        keeper.then["stop"] = full
    else:
        keeper.then["stop"] = fail(RuntimeFault("no")) if how == "fails" else hang
    with pytest.raises(NotKept, match=why) as caught:
        asyncio.run(once(keeper, KEEP, deadlines=Deadlines(teardown=0.3)))
    assert caught.value.phase == "stop"
    assert keeper.existing == set()
    assert left(state) == []


def test_a_damaged_file_does_not_hide_the_others(keeper: Keeper, state: Path) -> None:
    asyncio.run(once(keeper, SNAPSHOT))
    whole = known(state)
    for number, text in enumerate(("{", "[]", '{"v": 2}', '{"v": 1, "instance": 5}')):
        (state / "snapshots" / f"claw-{number}.json").write_text(text)
    found, problems = metadata.read(state)
    assert found == [whole]
    assert len(problems) == 4
    metadata.forget(state, whole)
    assert metadata.read(state)[0] == []
    metadata.forget(state, whole)


def test_a_label_is_made_a_part_of_a_name() -> None:
    assert Audit("after a / failure").slug == "after-a-failure"
    assert Audit("../..").slug == "audit"
    assert len(Audit("x" * 300).slug) == 100


async def opened_again(keeper: Keeper, **options: Any) -> Opened:
    """Open what is kept, and run a command in it."""
    async with Opened(keeper) as opened:
        (entry,) = opened.router.ledger.scan()
        async with opened.router.reopen(entry, **options) as session:
            (entry,) = opened.router.ledger.scan()
            assert (entry.state, entry.alive, entry.owner) == ("running", True, os.getpid())
            assert (await session.run(["x"])).code == 0
    return opened


def test_what_is_kept_is_started_again_and_kept(keeper: Keeper, state: Path) -> None:
    asyncio.run(once(keeper, KEEP, image="base:1", group="finance"))
    keeper.calls.clear()
    asyncio.run(opened_again(keeper))
    assert keeper.calls == ["start", "execute", "stop"]
    (entry,) = Ledger.open(state).scan()
    assert entry.state == "held"
    assert (record(state)["group"], record(state)["teardown"]) == ("finance", "held")
    asyncio.run(opened_again(keeper, keeping=Keeping("always")))
    assert keeper.calls[-2:] == ["snapshot", "teardown"]
    assert left(state) == []


def test_what_does_not_start_again_stays_kept(keeper: Keeper, state: Path) -> None:
    asyncio.run(once(keeper, KEEP))
    keeper.then["start"] = fail(RuntimeFault("no room"))
    with pytest.raises(RuntimeFault, match="no room"):
        asyncio.run(opened_again(keeper))
    assert "teardown" not in keeper.calls
    assert [entry.state for entry in Ledger.open(state).scan()] == ["held"]


@pytest.mark.parametrize("moment", ["claim", "start"])
def test_a_cancellation_while_it_is_opened_again_leaves_it_kept(
    keeper: Keeper, state: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    asyncio.run(once(keeper, KEEP))
    keeper.calls.clear()
    claim, entered = Ledger.claim, asyncio.Event()

    def slow(self: Ledger, entry: Any) -> Any:
        loop.call_soon_threadsafe(entered.set)
        time.sleep(0.1)
        return claim(self, entry)

    async def linger() -> None:
        entered.set()
        await hang()

    if moment == "claim":
        monkeypatch.setattr(Ledger, "claim", slow)
    else:
        keeper.then["start"] = linger

    async def main() -> None:
        task = asyncio.create_task(opened_again(keeper))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (entry,) = Ledger.open(state).scan()
        assert (entry.state, entry.alive) == ("held", False)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(main())
    assert "teardown" not in keeper.calls


def test_what_its_runtime_refuses_stays_untouched(
    keeper: Keeper, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(once(keeper, KEEP))
    keeper.calls.clear()

    async def assess(spec: Spec) -> Refusal:
        return Refusal("its image is gone", "make it again")

    monkeypatch.setattr(keeper, "assess", assess)
    with pytest.raises(Refused, match="its image is gone"):
        asyncio.run(opened_again(keeper))
    assert keeper.calls == []
    assert [entry.state for entry in Ledger.open(state).scan()] == ["held"]


def test_only_what_is_kept_and_nobodys_is_opened_again(keeper: Keeper, state: Path) -> None:
    asyncio.run(once(keeper, KEEP))

    async def main() -> None:
        async with Opened(keeper) as opened:
            (entry,) = opened.router.ledger.scan()
            async with opened.router.reopen(entry):
                with pytest.raises(ClawError, match="somebody else"):
                    async with opened.router.reopen(entry):
                        raise AssertionError
                (now,) = opened.router.ledger.scan()
                with pytest.raises(ClawError, match="its state is 'running'"):
                    async with opened.router.reopen(now):
                        raise AssertionError

    asyncio.run(main())
    assert [entry.state for entry in Ledger.open(state).scan()] == ["held"]


@pytest.mark.parametrize("allowed", [0, 1])
def test_what_cannot_be_noted_to_run_again_stays_kept(
    keeper: Keeper, state: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """First comes the fact that tells who has it, and then the state."""
    asyncio.run(once(keeper, KEEP))
    keeper.calls.clear()
    counts = itertools.count()

    def full(*arguments: Any) -> int:
        if next(counts) < allowed:
            return os.pwrite(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vfs, "pwrite", full)
    with pytest.raises(LedgerUnavailable):
        asyncio.run(opened_again(keeper))
    assert keeper.calls == []
    (entry,) = Ledger.open(state).scan()
    assert (entry.state, entry.alive) == ("held", False)
