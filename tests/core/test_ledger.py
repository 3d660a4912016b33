from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw_core import durable, failpoints, lifeline, locks, vfs
from claw_core.entry import State, held
from claw_core.errors import ConfigError, LedgerUnavailable
from claw_core.intent import Intent
from claw_core.lease import Lease
from claw_core.ledger import Ledger
from claw_core.locks import InFlight
from claw_core.statedir import default_state_directory
from core.model_backend import child, ended, intent, kill, lifecycle, reap, until

ACQUIRE = [
    "ledger.pre-open",
    "ledger.post-open",
    "ledger.post-flock",
    "ledger.post-intent",
    "ledger.post-sync",
    "ledger.post-preallocate",
    "ledger.post-rename",
    "ledger.post-dirsync",
]

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "world").mkdir()
    return tmp_path / "world"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "state")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_an_entry_says_everything_that_a_fresh_process_needs(ledger: Ledger) -> None:
    wanted = Intent.new(
        ledger.install, "docker", {"host": "unix:///x"}, group="g", image="i", settle=2.5,
        argv=["claude"],
    )  # fmt: skip
    with ledger.acquire(wanted) as lease:
        lease.record("endpoint", "unix:///x")
        lease.record("endpoint", "unix:///y")
        assert lease.mark("running")
        (entry,) = ledger.scan()
        assert entry.intent == lease.intent == wanted
        assert entry.alive
        assert entry.error is None
        assert entry.name == lease.name == f"claw-{ledger.install}-{wanted.identity[:12]}"
        assert entry.facts == {"endpoint": "unix:///y"}
        assert entry.state == "running"
        assert 0 <= entry.age < 60
    (entry,) = ledger.scan()
    assert not entry.alive


def test_the_files_are_for_their_owner_only(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        lease.op_lock()
        for path in (ledger.state, ledger.directory):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in ledger.directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_released_entry_leaves_nothing(ledger: Ledger, world: Path) -> None:
    lease = ledger.acquire(intent(ledger, world))
    lease.op_lock()
    lease.mark("gone")
    lease.release()
    assert os.listdir(ledger.directory) == []
    for use in (lease.release, lease.op_lock, lambda: lease.record("a", "b")):
        with pytest.raises(LedgerUnavailable):
            use()
    lease.abandon()


def test_nobody_claims_the_live_instance_of_their_own_process(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        assert ledger.claim(lease.intent.identity) is None
        (entry,) = Ledger.open(ledger.state).scan()
        assert entry.alive
        assert Ledger.open(ledger.state).claim(entry) is None
        assert lease.held


def test_the_lease_ends_with_its_owner(ledger: Ledger, world: Path) -> None:
    def owner() -> None:
        ledger.acquire(intent(ledger, world)).op_lock()
        time.sleep(60)

    pid = child(owner)
    until(lambda: any(entry.alive for entry in ledger.scan()))
    kill(pid)
    (entry,) = ledger.scan()
    assert not entry.alive
    lease = ledger.claim(entry)
    assert lease is not None
    assert ledger.claim(entry) is None
    lease.release()
    assert ledger.claim(entry) is None


def test_a_fork_that_outlives_the_owner_keeps_neither_lease_nor_op_lock(
    ledger: Ledger, world: Path
) -> None:
    def owner() -> None:
        lease = ledger.acquire(intent(ledger, world))
        lease.op_lock()
        worker = multiprocessing.get_context("fork").Process(target=_work, args=(lease, world))
        worker.start()
        time.sleep(60)

    pid = child(owner)
    until(lambda: (world / "worker").exists())
    kill(pid)
    worker, verdict = (world / "worker").read_text().split()
    os.kill(int(worker), 0)
    (entry,) = ledger.scan()
    lease = ledger.claim(entry)
    assert lease is not None
    lease.abandon()
    os.kill(int(worker), 9)
    assert verdict == "spent"


def test_a_fork_takes_nothing_from_its_parent(ledger: Ledger) -> None:
    with ledger.acquire(Intent.new(ledger.install, "x")) as lease:
        lease.op_lock()
        assert ended(child(lambda: None)) == 0
        (entry,) = ledger.scan()
        assert entry.alive
        assert ledger.claim(entry) is None


def _work(lease: Lease, world: Path) -> None:
    """In a forked child every use of the lease is refused, and the numbers are not touched."""
    other = os.open(world, os.O_RDONLY)  # takes over a number that the lease had
    lifeline.keep(other)
    verdict = "usable"
    try:
        lease.record("a", "b")
    except LedgerUnavailable:
        verdict = "spent"
    lease.abandon()
    os.fstat(other)
    (world / "part").write_text(f"{os.getpid()} {verdict}")
    (world / "part").rename(world / "worker")
    time.sleep(60)


def test_a_child_in_flight_keeps_the_instance_from_being_claimed(
    ledger: Ledger, world: Path
) -> None:
    def owner() -> None:
        lease = ledger.acquire(intent(ledger, world))
        tool = subprocess.Popen(["sleep", "60"], pass_fds=(lease.op_lock(),))
        (world / "part").write_text(str(tool.pid))
        (world / "part").rename(world / "tool")
        time.sleep(60)

    pid = child(owner)
    until(lambda: (world / "tool").exists())
    kill(pid)
    (entry,) = ledger.scan()
    assert not entry.alive
    with pytest.raises(InFlight):
        ledger.claim(entry)
    os.kill(int((world / "tool").read_text()), 9)

    def claimed() -> bool:
        try:
            lease = ledger.claim(entry)
        except InFlight:
            return False
        assert lease is not None
        assert lifeline.holds(lease.op_lock())
        lease.release()
        return True

    until(claimed)
    assert os.listdir(ledger.directory) == []


def test_torn_and_nul_filled_lines_are_skipped_and_not_written_into(
    ledger: Ledger, world: Path
) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        lease.record("one", "1")
        identity = lease.intent.identity
    path = ledger.directory / f"{identity}.jsonl"
    whole = path.read_bytes().rstrip(b"\0")
    tails = [
        b'{"fact":["two","2',
        b"\0\0\0",
        b'\0\0{"state":"running"}\n',
        b"\n\n",
        b"\xff\n",
        b"[]\n",
    ]
    for tail in [*tails, b"x" * 5000, b"x" * 5000 + b"\n"]:
        for padding in (b"", b"\0" * 3000):
            path.write_bytes(whole + tail + padding)
            (entry,) = ledger.scan()
            assert entry.intent is not None
            assert entry.facts == {"one": "1"}
            claimed = ledger.claim(entry)
            assert claimed is not None
            claimed.record("three", "3")
            claimed.mark("limbo", since=1)
            claimed.abandon()
            (entry,) = ledger.scan()
            assert entry.facts == {"one": "1", "three": "3"}
            assert (entry.state, entry.detail) == ("limbo", {"since": 1})


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 4096,
        b'{"v":1,"int',
        b"nonsense\n",
        b"[]\n",
        b"null\n",
        b'{"v":2,"intent":{}}\n',
        b'{"v":1,"intent":{"identity":"0"}}\n',
        b'{"v":1,"intent":[]}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_damaged_entry_is_shown_and_kept(ledger: Ledger, world: Path, damage: bytes) -> None:
    path = ledger.directory / f"{'ab' * 16}.jsonl"
    path.write_bytes(damage)
    with ledger.acquire(intent(ledger, world)):
        entries = {entry.identity: entry for entry in ledger.scan()}
    assert len(entries) == 2
    entry = entries["ab" * 16]
    assert entry.intent is None
    assert entry.name == f"claw-{ledger.install}-abababababab"
    assert entry.error is not None
    assert str(path) in entry.error
    with pytest.raises(LedgerUnavailable) as caught:
        ledger.claim(entry)
    assert caught.value.remedy is not None
    assert path.exists()


def test_a_claim_that_fails_lets_go(ledger: Ledger) -> None:
    lease = ledger.acquire(Intent.new(ledger.install, "x"))
    lease.op_lock()
    lease.abandon()
    (entry,) = ledger.scan()
    entry.path.write_text("damaged\n")
    for _ in range(2):  # the second time it is not this process itself that is at work on it
        with pytest.raises(LedgerUnavailable, match="cannot be read"):
            ledger.claim(entry)


def test_an_entry_of_another_installation_or_file_is_not_taken_for_ours(
    ledger: Ledger, tmp_path: Path, world: Path
) -> None:
    other = Ledger.open(tmp_path / "other")
    other.acquire(intent(other, world)).abandon()
    (theirs,) = other.scan()
    (ledger.directory / theirs.path.name).write_bytes(theirs.path.read_bytes())
    mine = ledger.acquire(intent(ledger, world))
    mine.abandon()
    copied = ledger.directory / f"{mine.intent.identity}.jsonl"
    (ledger.directory / f"{'0' * 32}.jsonl").write_bytes(copied.read_bytes())
    errors = [entry.error or "" for entry in ledger.scan() if entry.intent is None]
    assert len(errors) == 2
    assert any(other.install in error for error in errors)


@root
def test_a_state_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "state")
    os.chown(ledger.directory, 12345, 12345)
    with pytest.raises(LedgerUnavailable, match="12345") as caught:
        Ledger.open(tmp_path / "state")
    assert "CLAW_STATE" in (caught.value.remedy or "")


def test_a_state_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o770)
    with pytest.raises(LedgerUnavailable, match="others can change"):
        Ledger.open(tmp_path / "state")


def test_a_state_directory_that_cannot_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnavailable):
        Ledger.open(tmp_path / "file" / "state")


@root
def test_an_entry_that_cannot_be_opened_is_shown(ledger: Ledger, world: Path) -> None:
    ledger.acquire(intent(ledger, world)).abandon()
    (path,) = ledger.directory.iterdir()
    path.unlink()
    path.symlink_to(path)
    (entry,) = ledger.scan()
    assert "cannot be opened" in (entry.error or "")

    def other_user() -> None:
        os.setuid(12345)
        with pytest.raises(LedgerUnavailable) as caught:
            Ledger.open(ledger.state)
        assert "yours" in (caught.value.remedy or "")
        with pytest.raises(LedgerUnavailable):
            ledger.scan()

    assert ended(child(other_user)) == 0


def test_processes_that_start_together_agree_on_the_install_id(tmp_path: Path) -> None:
    for turn in range(20):
        state, out = tmp_path / f"{turn}", tmp_path / f"out-{turn}"
        out.mkdir()

        def race(state: Path = state, out: Path = out) -> None:
            (out / f"{os.getpid()}").write_text(Ledger.open(state).install)

        pids = [child(race) for _ in range(4)]
        assert [ended(pid) for pid in pids] == [0] * 4
        assert len({path.read_text() for path in out.iterdir()}) == 1
        assert sorted(os.listdir(state)) == ["install", "instances"]


def test_a_damaged_install_id_is_never_replaced(ledger: Ledger) -> None:
    (ledger.state / "install").write_text("nonsense")
    with pytest.raises(LedgerUnavailable, match="install id") as caught:
        Ledger.open(ledger.state)
    assert caught.value.remedy is not None
    assert (ledger.state / "install").read_text() == "nonsense"


def test_everything_is_durable_before_it_counts(
    ledger: Ledger, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def note(module: object, name: str) -> None:
        original = getattr(module, name)

        def noted(*arguments: object, **options: object) -> object:
            steps.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, noted)

    for name in ("write_all", "sync_data", "preallocate", "sync_directory"):
        note(durable, name)
    for name in ("pwrite", "rename", "unlink"):
        note(vfs, name)
    lease = ledger.acquire(intent(ledger, world))
    acquired = ["write_all", "sync_data", "preallocate", "rename", "sync_directory"]
    assert steps == acquired
    steps.clear()
    lease.record("key", "value")
    assert steps == ["pwrite", "sync_data"]
    synced: tuple[State, ...] = ("limbo", "quarantined", "held", "gone")
    for state in synced:
        steps.clear()
        lease.mark(state)
        assert steps == ["pwrite", "sync_data"]
    steps.clear()
    lease.mark("running")
    assert steps == ["pwrite"]
    steps.clear()
    lease.release()
    assert steps == [*3 * ["unlink"], "sync_directory"]  # the entry last


@pytest.mark.parametrize("point", ACQUIRE)
@pytest.mark.parametrize("kind", ["enospc", "raise"])
def test_an_acquire_that_fails_anywhere_leaves_nothing(
    ledger: Ledger, world: Path, point: str, kind: str
) -> None:
    failpoints.arm(f"{point}={kind}")
    error = LedgerUnavailable if kind == "enospc" else failpoints.InjectedFault
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(error) as caught:
        ledger.acquire(intent(ledger, world))
    if isinstance(caught.value, LedgerUnavailable):
        assert "free some space" in (caught.value.remedy or "")
    assert os.listdir(ledger.directory) == []
    assert len(os.listdir("/dev/fd")) == before


def test_an_identity_in_use_is_refused(ledger: Ledger) -> None:
    first = Intent.new(ledger.install, "first")
    with ledger.acquire(first):
        with pytest.raises(LedgerUnavailable, match="in use"):
            ledger.acquire(Intent.new(ledger.install, "second", identity=first.identity))
        assert [(entry.runtime, entry.alive) for entry in ledger.scan()] == [("first", True)]


def test_a_look_does_not_show_what_goes_meanwhile(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, alive = ledger.acquire(Intent.new(ledger.install, "x")), locks.alive

    def later(descriptor: int) -> bool:
        lease.release()
        return alive(descriptor)

    monkeypatch.setattr(locks, "alive", later)
    assert ledger.scan() == []


def test_settings_that_are_not_json_are_refused(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="JSON"):
        ledger.acquire(Intent.new(ledger.install, "model", {"a": object()}))
    assert os.listdir(ledger.directory) == []


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


@root
def test_a_full_disk_refuses_new_instances_and_lets_old_ones_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        ledger = Ledger.open(disk / "state")
        world = tmp_path / "world"
        world.mkdir()
        old = ledger.acquire(intent(ledger, world))
        limbo = ledger.acquire(intent(ledger, world))
        fill(disk / "filler")
        names = set(os.listdir(ledger.directory))
        with pytest.raises(LedgerUnavailable) as caught:
            ledger.acquire(intent(ledger, world))
        assert "free some space" in (caught.value.remedy or "")
        assert set(os.listdir(ledger.directory)) == names
        assert limbo.mark("limbo", since=1)  # inside the reserved block
        with pytest.raises(LedgerUnavailable):
            limbo.record("big", "x" * 10_000)
        with pytest.raises(LedgerUnavailable):
            limbo.hold(60, text="x" * 10_000)
        assert not limbo.mark("gone", text="x" * 10_000)
        limbo.release()
        assert old.mark("gone")
        old.release()
        assert os.listdir(ledger.directory) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_fact_after_a_failed_write_is_readable(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        pwrite = os.pwrite

        def torn(descriptor: int, data: bytes, offset: int) -> int:
            if b"two" in data and len(data) > 5:
                return pwrite(descriptor, data[:5], offset)
            raise OSError(28, "full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vfs, "pwrite", torn)
            with pytest.raises(LedgerUnavailable):
                lease.record("two", "2")
        lease.record("three", "3")
        (entry,) = ledger.scan()
        assert entry.facts == lease.facts == {"three": "3"}


def test_an_instance_is_kept_for_its_time(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        lease.hold(3600)
    (entry,) = ledger.scan()
    assert held(entry.state, entry.detail)
    later = {**entry.detail, "until": 0.0}
    assert not held("held", later)
    rebooted = {**entry.detail, "boot": "another", "until": 0.0}
    assert held("held", rebooted)
    assert not held("held", {**rebooted, "wall": 0.0})
    assert not held("limbo", entry.detail)


def test_what_crashes_leave_behind_is_swept_and_what_lives_is_not(
    ledger: Ledger, world: Path
) -> None:
    for plan in ACQUIRE[1:6]:
        pid = child(lambda: lifecycle(ledger.state, world), f"{plan}=kill")
        assert ended(pid) == -9
    (ledger.directory / f"{'0' * 32}.op").touch()
    assert len(os.listdir(ledger.directory)) == 6
    pid = child(lambda: lifecycle(ledger.state, world), "ledger.post-intent=hang")
    until(lambda: len(os.listdir(ledger.directory)) == 7)
    time.sleep(0.05)
    assert ledger.scan(sweep=False) == []
    assert len(os.listdir(ledger.directory)) == 7
    with ledger.acquire(intent(ledger, world)) as lease:
        lease.op_lock()
        assert len(ledger.scan()) == 1
        assert len(os.listdir(ledger.directory)) == 3
    kill(pid)
    reap(ledger.state)
    assert os.listdir(ledger.directory) == []


def test_a_sweep_never_makes_an_acquire_fail(ledger: Ledger, world: Path) -> None:
    def sweep() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            ledger.scan()

    sweepers = [child(sweep) for _ in range(2)]
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        ledger.acquire(intent(ledger, world)).release()
    assert [ended(pid) for pid in sweepers] == [0, 0]
    assert os.listdir(ledger.directory) == []


def test_a_temporary_file_that_was_swept_is_made_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = vfs.flock, set[Path]()

    def late(descriptor: int, operation: int) -> None:
        if not swept:
            swept.update(ledger.directory.glob(".tmp-*"))
            for path in swept:
                path.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(vfs, "flock", late)
    ledger.acquire(Intent.new(ledger.install, "x")).release()
    assert len(swept) == 1


def test_a_lock_on_a_file_that_was_replaced_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / "file", vfs.flock
    path.write_text("old")

    def late(descriptor: int, operation: int) -> None:
        path.unlink()
        path.write_text("new")
        lock(descriptor, operation)

    monkeypatch.setattr(vfs, "flock", late)
    assert locks.lock_existing(path) is None
    assert path.read_text() == "new"


def test_a_file_is_removed_before_its_lock_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink, held = tmp_path / "file", vfs.unlink, []

    def seen(path: Path) -> None:
        looking = os.open(path, os.O_RDONLY)
        held.append(locks.alive(looking))
        os.close(looking)
        unlink(path)

    monkeypatch.setattr(vfs, "unlink", seen)
    locks.discard(path, locks.create_locked(path))
    assert held == [True]


def test_what_is_written_in_parts_is_whole(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, write = ledger.acquire(Intent.new(ledger.install, "x")), vfs.pwrite
    monkeypatch.setattr(vfs, "pwrite", lambda file, data, at: write(file, data[:7], at))
    lease.record("endpoint", "unix:///x")
    lease.abandon()
    (entry,) = ledger.scan()
    assert entry.facts == {"endpoint": "unix:///x"}


def test_ten_thousand_entries_are_scanned_quickly(ledger: Ledger, world: Path) -> None:
    ledger.acquire(intent(ledger, world)).abandon()
    (path,) = ledger.directory.iterdir()
    data = path.read_bytes()
    for number in range(9_999):
        identity = f"{number:032x}"
        copy = data.replace(path.stem.encode(), identity.encode())
        (ledger.directory / f"{identity}.jsonl").write_bytes(copy)
    started = time.monotonic()
    entries = ledger.scan()
    assert time.monotonic() - started < 5  # the budget of 0.3 s is measured in benchmarks/
    assert len(entries) == 10_000
    assert all(entry.intent for entry in entries)


def test_the_state_directory_is_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLAW_STATE", "/a")
    monkeypatch.setenv("XDG_STATE_HOME", "/b")
    assert default_state_directory() == Path("/a")
    monkeypatch.delenv("CLAW_STATE")
    assert default_state_directory() == Path("/b/claw")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert default_state_directory().is_relative_to("/c")
    assert default_state_directory().name == "claw"


def test_looks_do_not_disturb_each_other(ledger: Ledger, world: Path) -> None:
    ledger.acquire(intent(ledger, world)).abandon()
    (entry,) = ledger.scan()
    other = os.open(entry.path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)  # what another process's look has for some microseconds
    assert not ledger.scan()[0].alive
    assert ledger.claim(entry) is None
    os.close(other)
    lease = ledger.claim(entry)
    assert lease is not None
    lease.release()


def test_the_op_lock_of_an_existing_entry_is_never_swept(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)) as lease:
        lease.op_lock()
    ledger.scan()
    assert len(os.listdir(ledger.directory)) == 2


def test_only_what_a_reaper_can_end_is_reapable(ledger: Ledger, world: Path) -> None:
    with ledger.acquire(intent(ledger, world)):
        with ledger.acquire(intent(ledger, world)) as kept:
            kept.hold(60)
        (ledger.directory / f"{'0' * 32}.jsonl").write_bytes(b"{")
        assert [entry.reapable for entry in ledger.scan()] == [False] * 3
        with ledger.acquire(intent(ledger, world)) as failed:
            failed.mark("quarantined", error="x")
        reapable = [entry.name for entry in ledger.scan() if entry.reapable]
        assert reapable == [failed.name]


def test_opening_without_creating_makes_nothing(tmp_path: Path) -> None:
    for made in (False, True):
        with pytest.raises(LedgerUnavailable, match="state"):
            Ledger.open(tmp_path / "state", create=False)
        assert (tmp_path / "state").exists() == made
        if not made:
            (tmp_path / "state").mkdir(mode=0o700)
    assert os.listdir(tmp_path / "state") == []
