"""Runs that are killed at any moment, and what may be left of them: nothing.

The oracle is never the ledger: it is the backend's own listing, the process table, and a heartbeat
that the payload writes to a mount, which must stand still once the listing says absent.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import attrs

from claw_core.ledger import Ledger
from cli.support import entries, eventually, marked, start, wardens

PAYLOAD = """
trap '' TERM INT HUP
beat='while :; do echo >> /beat/pulse; sleep 0.02; done'
setsid sh -c "trap '' TERM INT HUP; $beat" "$0" &
echo ready
eval "$beat"
"""
"""Two loops that ignore every polite request, the second in a session of its own."""
BEATS = 0.1
"""Seconds in which a payload that lives would have written."""


@attrs.frozen
class World:
    """Where runs are killed.

    Attributes:
        runtime: name of the runtime.
        options: of `claw run`.
        env: of every claw process.
        listing: what the backend itself says there is, in every state.
        early: failpoint at which an owner dies without knowing whether its creation happened.
    """

    runtime: str
    options: tuple[str, ...]
    env: Mapping[str, str]
    listing: Callable[[], Collection[str]]
    early: str


@attrs.define
class Scene:
    """One world with a ledger and a mount of its own, and the kills that were dealt in it."""

    world: World
    state: Path
    folder: Path
    marker: str = attrs.field(factory=lambda: f"beat-{uuid.uuid4().hex}")
    kills: int = 0

    def __attrs_post_init__(self) -> None:
        (self.folder / "mount").mkdir()
        (self.folder / "mount").chmod(0o777)
        for parent in (self.folder, *self.folder.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o755)

    @contextlib.contextmanager
    def run(self, plan: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """A run of the payload; whatever of it is alive in the end is killed."""
        mount = f"{self.folder / 'mount'}:/beat:rw"
        command = ("sh", "-c", PAYLOAD, self.marker)
        options = ("-q", "-r", self.world.runtime, *self.world.options, "--mount", mount)
        with start("run", *options, "--", *command, env=self._env(plan)) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.communicate()
                self.kills += process.returncode == -signal.SIGKILL

    def reap(self, plan: str = "") -> subprocess.Popen[bytes]:
        return start("reap", "--deadline", "60s", env=self._env(plan))

    def ended(self, *reapers: subprocess.Popen[bytes]) -> None:
        for reaper in reapers:
            with reaper:
                reaper.communicate(timeout=90)
                self.kills += reaper.returncode == -signal.SIGKILL

    def passed(self) -> set[str]:
        """Failpoints that any process has passed or died at."""
        log = self.folder / "points"
        return set(log.read_text().split()) if log.exists() else set()

    def kill_at(self, point: str) -> None:
        """Let whoever comes to a point die there: owner, warden or reaper, two of them at once."""
        plan = f"{point}=kill"
        with self.run(plan) as owner:
            if ready(owner):
                owner.send_signal(signal.SIGTERM)
                owner.wait(60)
        if point not in self.passed():
            with self.run(f"{self.world.early}=kill;{plan}") as owner:
                owner.wait(60)
        self.ended(self.reap(plan), self.reap(plan))
        # They may have found the warden's reaper at work, which then comes to that point.
        assert eventually(lambda: point in self.passed(), 60)

    def kill_at_random(self, chance: random.Random) -> None:
        """Kill an owner, sometimes its warden first, and one of two reapers that follow."""
        with self.run() as owner:
            if chance.random() < 0.3:
                time.sleep(chance.uniform(0, 1.2))
            else:
                known = set(entries(self.state))
                assert eventually(
                    lambda: bool(set(entries(self.state)) - known) or owner.poll() is not None, 60
                )
                time.sleep(chance.choice([chance.uniform(0, 0.05), chance.uniform(0, 0.6)]))
            if chance.random() < 0.5:
                self.kill_wardens()
        reapers = [self.reap(), self.reap()]
        time.sleep(chance.uniform(0, 0.7))
        if chance.random() < 0.7:
            reapers[0].kill()
        if chance.random() < 0.3:
            self.kill_wardens()
        self.ended(*reapers)

    def assert_nothing_is_left(self) -> None:
        """After one more reap there is nothing, says everybody but the ledger; then it, too."""

        def reaped() -> bool:
            self.ended(self.reap())
            return entries(self.state) == []

        assert eventually(reaped, 90), entries(self.state)
        install = Ledger.open(self.state).install
        left = [name for name in self.world.listing() if install in name]
        assert left == [], left
        before = self._beats()
        time.sleep(BEATS)
        assert self._beats() == before, "the payload still writes to its mount"
        assert marked(self.marker) == []

    def _beats(self) -> int:
        pulse = self.folder / "mount/pulse"
        return pulse.stat().st_size if pulse.exists() else 0

    def kill_wardens(self) -> None:
        for pid in wardens(self.state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def _env(self, plan: str) -> dict[str, str]:
        log = {"CLAW_FAILPOINT": plan, "CLAW_FAILPOINT_LOG": str(self.folder / "points")}
        return {**os.environ, **self.world.env, **(log if plan else {})}


def ready(owner: subprocess.Popen[bytes]) -> bool:
    """Wait until the payload runs, or the owner is dead."""
    assert owner.stdout is not None
    return owner.stdout.readline() == b"ready\n"


def many(scene: Scene, kills: int, seed: int) -> None:
    """Kill at random until enough was killed; looks after every fifth round what is left."""
    chance = random.Random(seed)
    rounds = 0
    while scene.kills < kills:
        for _ in range(5):
            scene.kill_at_random(chance)
        rounds += 5
        scene.assert_nothing_is_left()
    tell("kills", where=scene.world.runtime, kills=scene.kills, rounds=rounds, seed=seed, leaks=0)


def tell(what: str, **numbers: object) -> None:
    """Add a line to the file that `benchmarks/reliability.py` makes its table of."""
    if path := os.environ.get("CLAW_RELIABILITY"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"what": what, **numbers}) + "\n")
