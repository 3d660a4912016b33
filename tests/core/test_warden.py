from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claw_core import waiter
from claw_core.errors import WardenUnavailable
from claw_core.ledger import Ledger
from claw_core.warden import Warden, environment
from core.model_backend import child, create, ended, intent, kill, orphan, reap, until

CANARY = "canary-8f2e51"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    return tmp_path / "world"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "state")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the model as a runtime that a fresh process can resolve."""
    info = tmp_path / "site" / "claw_model-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: claw-model\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[claw.runtimes]\nmodel = core.model_backend:ModelRuntime\n"
    )
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{tests}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("TART_VM_PASSWORD", CANARY)
    monkeypatch.setenv("CLAW_AUTH_TOKEN", CANARY)


@pytest.fixture(autouse=True)
def nothing_stays(ledger: Ledger) -> Iterator[None]:
    """Every process that works on this test's state directory has ended."""
    yield
    until(lambda: not processes(ledger))


def removed(directory: Path) -> bool:
    """Remove a directory that others may write to meanwhile, and say whether it is gone."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def processes(ledger: Ledger) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(ledger.state) in command:
            found.append(int(name))
    return found


@asynccontextmanager
async def started(ledger: Ledger) -> AsyncIterator[Warden]:
    warden = await Warden.start(ledger.state)
    try:
        yield warden
    finally:
        await warden.close()


def children() -> list[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_a_killed_owners_instances_are_reaped(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        async def run() -> None:
            await Warden.start(ledger.state)
            with ledger.acquire(intent(ledger, world)) as lease:
                create(world, lease.name)
                await asyncio.sleep(60)

        asyncio.run(run())

    pid = child(owner)
    until(lambda: os.listdir(world))
    kill(pid)
    until(lambda: os.listdir(world) == [] == os.listdir(ledger.directory))


def test_a_creation_that_comes_late_is_reaped(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        async def run() -> None:
            await Warden.start(ledger.state)
            lease = ledger.acquire(intent(ledger, world, settle=1.5))
            command = ["sh", "-c", f"sleep 0.8; mkdir {world / lease.name}; touch {world / 'was'}"]
            subprocess.Popen(command, start_new_session=True)
            os.kill(os.getpid(), 9)

        asyncio.run(run())

    assert ended(child(owner)) == -9
    until(lambda: os.listdir(world) == ["was"] and os.listdir(ledger.directory) == [])


def test_a_reap_that_fails_after_the_owners_death_is_tried_again(
    ledger: Ledger, world: Path, tmp_path: Path
) -> None:
    points = tmp_path / "site" / "claw_model-1.dist-info" / "entry_points.txt"
    points.rename(tmp_path / "uninstalled")

    def owner() -> None:
        async def run() -> None:
            await Warden.start(ledger.state)
            lease = ledger.acquire(intent(ledger, world))
            create(world, lease.name)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())

    assert ended(child(owner)) == -signal.SIGKILL
    until(lambda: ledger.scan()[0].state == "quarantined")
    (tmp_path / "uninstalled").rename(points)
    until(lambda: os.listdir(world) == [] == os.listdir(ledger.directory))


def test_the_warden_is_deaf_to_what_ends_its_owner(ledger: Ledger) -> None:
    async def run() -> None:
        async with started(ledger) as warden:
            pid = warden.pid
            assert pid is not None
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                os.kill(pid, number)
            await asyncio.sleep(0.2)
            assert warden.alive()
            assert os.getsid(pid) == pid
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            descriptors = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
            assert descriptors == [0, 1, 2]
            assert os.readlink(f"/proc/{pid}/fd/1") == os.devnull

    asyncio.run(run())


def test_it_holds_no_secret_and_nothing_else_of_its_owner(ledger: Ledger, tmp_path: Path) -> None:
    async def run() -> None:
        async with started(ledger) as warden:
            text = Path(f"/proc/{warden.pid}/environ").read_text()
            assert CANARY not in text
            assert "PATH=" in text
            assert str(tmp_path / "site") in text
            # Nor does it keep a directory from being removed.
            assert os.readlink(f"/proc/{warden.pid}/cwd") == "/"
            assert len(os.listdir(f"/proc/{warden.pid}/fd")) == 3

    assert CANARY in os.environ.values()
    asyncio.run(run())


def test_the_environment_keeps_what_reaping_needs() -> None:
    kept = {
        "HOME": "/h",
        "PATH": "/bin",
        "DOCKER_HOST": "x",
        "TART_HOME": "x",
        "XDG_STATE_HOME": "x",
    }
    dropped = {"OPENAI_API_KEY": "x", "LD_PRELOAD": "x", "DOCKER_AUTH_CONFIG": "x", "MY_HOME": "x"}
    assert environment({**kept, **dropped}) == kept


def test_a_clean_end_reaps_nothing_and_leaves_no_process(ledger: Ledger, world: Path) -> None:
    async def run() -> None:
        before = children()
        async with started(ledger) as warden:
            assert warden.alive()
            assert len(children()) == len(before) + 1
        assert not warden.alive()
        assert children() == before
        await warden.close()

    orphan(ledger, world)
    before = len(os.listdir("/dev/fd"))
    asyncio.run(run())
    assert len(os.listdir("/dev/fd")) == before
    assert processes(ledger) == []
    assert len(os.listdir(world)) == 1


def test_a_reap_is_done_on_request(ledger: Ledger, world: Path) -> None:
    async def run() -> None:
        async with started(ledger) as warden:
            for _ in range(3):
                orphan(ledger, world)
                warden.request_reap()
            while os.listdir(ledger.directory):
                await asyncio.sleep(0.02)
            orphan(ledger, world)
            warden.request_reap()
            while os.listdir(ledger.directory):
                await asyncio.sleep(0.02)
            assert warden.alive()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert os.listdir(world) == []


def test_a_reaper_that_dies_is_replaced_while_the_owner_lives(ledger: Ledger, world: Path) -> None:
    """Found by schedule 413778 of the simulation, and by none that kills the owner as well."""

    async def run() -> None:
        async with started(ledger) as warden:
            orphan(ledger, world, slow=0.5)
            warden.request_reap()
            while not (reapers := [pid for pid in processes(ledger) if pid != warden.pid]):
                await asyncio.sleep(0.01)
            os.kill(reapers[0], signal.SIGKILL)
            while os.listdir(ledger.directory):
                await asyncio.sleep(0.02)
            assert warden.alive()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert os.listdir(world) == []


def test_what_is_left_can_be_handed_over(ledger: Ledger, world: Path) -> None:
    async def run() -> None:
        before = children()
        warden = await Warden.start(ledger.state)
        orphan(ledger, world, settle=0.5)
        warden.hand_over()
        assert not warden.alive()
        while children() != before:
            await asyncio.sleep(0.01)
        await warden.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    until(lambda: os.listdir(world) == [] == os.listdir(ledger.directory))


def test_whoever_has_handed_over_has_no_child_any_more(ledger: Ledger, world: Path) -> None:
    async def run() -> None:
        before = children()
        warden = await Warden.start(ledger.state)
        orphan(ledger, world, broken=True)  # so that it goes on
        warden.hand_over()
        while children() != before:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert os.listdir(world) != []
    until(lambda: removed(ledger.state))


def test_a_killed_warden_is_replaced_and_misses_nothing(ledger: Ledger, world: Path) -> None:
    async def run() -> None:
        async with started(ledger) as warden:
            first = warden.pid
            await warden.ensure()
            assert first is not None
            assert first == warden.pid
            os.kill(first, signal.SIGKILL)
            while warden.alive():
                await asyncio.sleep(0.01)
            warden.request_reap()
            await asyncio.gather(*(warden.ensure() for _ in range(5)))
            assert warden.pid not in {None, first}
            assert len(children()) == 1

    asyncio.run(run())


def test_it_watches_when_any_of_those_who_start_it_goes_on(ledger: Ledger) -> None:
    async def run() -> None:
        warden = Warden(ledger.state, 5.0)
        first, second = (asyncio.create_task(warden.ensure()) for _ in "12")
        try:
            await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            assert first.done()
            await second
        finally:
            await warden.close()

    asyncio.run(run())


def test_asking_again_and_again_never_waits(ledger: Ledger) -> None:
    async def run() -> None:
        async with started(ledger) as warden:
            assert warden.pid is not None
            os.kill(warden.pid, signal.SIGSTOP)
            try:
                for _ in range(70_000):  # more than a pipe holds
                    warden.request_reap()
            finally:
                os.kill(warden.pid, signal.SIGCONT)

    asyncio.run(run())


def test_what_goes_on_failing_is_tried_more_and_more_rarely() -> None:
    demand, starts = waiter.Demand(), []
    demand.ask()
    assert demand.due < 0.0
    now = 0.0
    for _ in range(12):
        demand.started()
        assert demand.due > 1e9  # until it has ended, or somebody asks again
        demand.ended(failed=True, now=now)
        starts.append(demand.due - now)
        now = demand.due
    assert starts[:4] == [1.0, 2.0, 4.0, 8.0]
    assert starts[-1] == waiter.LAST_PAUSE
    demand.started()
    demand.ended(failed=False, now=now)
    assert demand.due > 1e9
    demand.ended(failed=True, now=now)
    assert demand.due == now + waiter.FIRST_PAUSE


def test_one_waiter_is_more_patient_than_the_others(ledger: Ledger) -> None:
    waiters = [waiter.Waiter(str(ledger.state), "/", "1") for _ in range(2)]
    assert [one.only_one() for one in waiters] == [True, False]


def test_a_reaper_after_a_death_is_told_whose(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, commands = waiter.Waiter(str(ledger.state), "/", "4711"), []
    monkeypatch.setattr(subject, "spawn", lambda: commands.append(subject.command))
    monkeypatch.setattr(subject, "finished", lambda: 0)
    subject.reap()
    assert [command[-2:] for command in commands] == [["--owner", "4711"]]


def test_a_reaper_that_does_not_end_is_killed(ledger: Ledger) -> None:
    subject = waiter.Waiter(str(ledger.state), "/", "1")
    with subprocess.Popen(["sleep", "60"]) as process:
        subject.reaper, subject.started = process.pid, time.monotonic() - waiter.REAPER_LIMIT - 1
        until(subject.finished)
        assert subject.reaper is None
        process.returncode = 0  # it has been waited for


def test_when_the_warden_dies_first_the_next_reap_cleans_up(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        async def run() -> None:
            warden = await Warden.start(ledger.state)
            assert warden.pid is not None
            os.kill(warden.pid, signal.SIGKILL)
            lease = ledger.acquire(intent(ledger, world))
            create(world, lease.name)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())

    assert ended(child(owner)) == -9
    until(lambda: not processes(ledger))
    assert len(os.listdir(world)) == 1
    assert [one.result for one in reap(ledger.state)] == ["gone"]
    assert os.listdir(world) == []


def test_a_fork_that_outlives_the_owner_does_not_hold_the_lifeline(
    ledger: Ledger, world: Path
) -> None:
    def owner() -> None:
        async def run() -> None:
            warden = await Warden.start(ledger.state)
            lease = ledger.acquire(intent(ledger, world))
            create(world, lease.name)
            worker = multiprocessing.get_context("fork").Process(
                target=_inert, args=(warden, world)
            )
            worker.start()
            await asyncio.sleep(60)

        asyncio.run(run())

    pid = child(owner)
    until(lambda: (world / "worker").exists())
    kill(pid)
    until(lambda: os.listdir(world) == ["worker"] and os.listdir(ledger.directory) == [])
    os.kill(int((world / "worker").read_text()), 9)  # it was alive all the time


def _inert(warden: Warden, world: Path) -> None:
    assert not warden.alive()
    warden.request_reap()
    (world / "part").write_text(str(os.getpid()))
    (world / "part").rename(world / "worker")
    time.sleep(60)


def test_a_warden_that_cannot_start_leaves_nothing(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/dev/fd"))
    script = tmp_path / "script.py"
    monkeypatch.setattr(waiter, "__file__", str(script))
    for text, reason in [
        ("raise SystemExit('the reason')", "the reason"),
        ("pass", "ended at once"),
        ("import time; time.sleep(60)", "not ready"),
    ]:
        script.write_text(text)
        with pytest.raises(WardenUnavailable, match=reason):
            asyncio.run(Warden.start(ledger.state, 0.3))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(WardenUnavailable, match="cannot run"):
        asyncio.run(Warden.start(ledger.state))
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("point", ["warden.spawned", "warden.ready"])
def test_an_owner_killed_while_starting_it_leaves_no_process(
    ledger: Ledger, world: Path, point: str
) -> None:
    orphan(ledger, world)
    pid = child(lambda: asyncio.run(Warden.start(ledger.state)), f"{point}=kill")
    assert ended(pid) == -signal.SIGKILL
    until(lambda: os.listdir(world) == [] == os.listdir(ledger.directory))


def test_cancelling_the_start_leaves_nothing(ledger: Ledger) -> None:
    async def run() -> None:
        for delay in (0.0, 0.002, 0.01, 0.03):
            task = asyncio.create_task(Warden.start(ledger.state))
            await asyncio.sleep(delay)
            task.cancel()
            try:
                warden = await task
            except asyncio.CancelledError:
                pass
            else:
                await warden.close()
            assert children() == []

    asyncio.run(run())


def test_the_waiter_imports_little() -> None:
    script = Path(waiter.__file__).with_name("waiter.py")
    listing = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", script], stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False,
    ).stderr  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in listing.splitlines()}
    assert "select" in imported
    assert not imported & {"asyncio", "subprocess", "typing", "re", "attr", "claw_core"}


def program(ledger: Ledger, *arguments: str) -> int:
    """Run the reaper as a program."""
    source = str(Path(waiter.__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": source + os.pathsep + os.environ["PYTHONPATH"]}
    command = [sys.executable, "-m", "claw_core.reaper", "--state", str(ledger.state)]
    done = subprocess.run([*command, *arguments], env=variables, capture_output=True)
    assert done.stdout == b""
    return done.returncode


def test_the_reaper_as_a_program(ledger: Ledger, world: Path) -> None:
    orphan(ledger, world)
    assert program(ledger) == 0
    assert os.listdir(world) == [] == os.listdir(ledger.directory)
    orphan(ledger, world, broken=True)
    assert program(ledger, "--deadline", "0.2") == 1
    reaper_sees = ledger.scan()[0]
    reaper_sees.path.unlink()
    with ledger.acquire(intent(ledger, world)):
        assert program(ledger) == 0
        assert program(ledger, "--owner", str(os.getpid())) == 1


def test_a_deleted_state_directory_ends_the_waiter_and_never_comes_back(
    ledger: Ledger, world: Path
) -> None:
    def owner() -> None:
        async def run() -> None:
            await Warden.start(ledger.state)
            orphan(ledger, world, broken=True)
            until(lambda: removed(ledger.state))
            os.kill(os.getpid(), 9)

        asyncio.run(run())

    assert ended(child(owner)) == -9
    until(lambda: not processes(ledger), 5.0)
    assert program(ledger) == 0
    assert not ledger.state.exists()


def test_an_entry_that_no_reap_can_change_is_not_tried_again(ledger: Ledger) -> None:
    (ledger.directory / f"{'0' * 32}.jsonl").write_bytes(b"{")
    assert program(ledger) == 0
