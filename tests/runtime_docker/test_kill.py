"""Whatever ends claw, and whenever, nothing of its containers survives the next reap."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from claw_core.ledger import Ledger
from cli.support import claw, entries, eventually, start
from runtime_docker import engines
from runtime_docker.engines import IMAGE, TestEngine

FENCE = ["docker.post-delete", "docker.tombstone", "docker.post-tombstone"]
COMMAND = "trap '' TERM INT HUP; (setsid sleep 700 &); echo ready; while :; do sleep 600; done"


def launch(engine: TestEngine, log: Path | None = None, plan: str = "") -> subprocess.Popen[bytes]:
    env = {**os.environ, "DOCKER_HOST": engine.host, "CLAW_FAILPOINT": plan}
    if log is not None:
        env["CLAW_FAILPOINT_LOG"] = str(log)
    return start("run", "-q", "-r", "docker", "--image", IMAGE, "--", "sh", "-c", COMMAND, env=env)


def ours(engine: TestEngine, state: Path) -> list[str]:
    """The engine's own listing, in all states."""
    install = Ledger.open(state).install
    return sorted(name for name in engine.names() if install in name)


def reap(state: Path, plan: str = "") -> int:
    """Reap without any hint where the engine is but the ledger."""
    env = {"CLAW_FAILPOINT": plan, "DOCKER_HOST": "unix:///nonexistent/other.sock"}
    return claw("reap", env=env, timeout=110).returncode


def assert_nothing_is_left(engine: TestEngine, state: Path) -> None:
    # A warden may be at work on an entry: then a reap leaves it to that.
    assert eventually(lambda: reap(state) == 0 and entries(state) == [], 60), entries(state)
    assert ours(engine, state) == []


def asked(log: Path) -> bool:
    """Whether the create request is about to be sent."""
    return log.exists() and "docker.pre-create" in log.read_text()


def kill_all(engine: TestEngine, moments: Sequence[tuple[bool, float]], tmp_path: Path) -> None:
    """Kill one run after the other: after some time, or some time after the create request."""
    for number, (early, delay) in enumerate(moments):
        log = tmp_path / f"log-{number}"
        with launch(engine, log) as process:
            if early:
                assert eventually(functools.partial(asked, log), 30)
            time.sleep(delay)
            process.kill()
            process.communicate()


def moments(count: int, seed: int) -> Iterator[tuple[bool, float]]:
    """Most of them from the create request to the running command; a part right after it."""
    chosen = random.Random(seed)
    for number in range(count):
        early = number % 5 != 0
        reach = 0.05 if number % 5 == 1 else 0.6
        yield early, chosen.uniform(0, reach if early else 1.2)


def test_sigkill_at_random_moments_leaves_nothing(
    engine: TestEngine, state: Path, tmp_path: Path
) -> None:
    kill_all(engine, list(moments(20, random.randrange(1 << 32))), tmp_path)
    assert_nothing_is_left(engine, state)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_sigkill_at_five_hundred_random_moments_leaves_nothing(
    engine: TestEngine, state: Path, tmp_path: Path
) -> None:
    for seed in range(20):
        kill_all(engine, list(moments(25, seed)), tmp_path)
        assert_nothing_is_left(engine, state)


@pytest.mark.parametrize("died", ["docker.pre-create", "docker.post-create"])
@pytest.mark.parametrize("point", ["docker.pre-delete", *FENCE, "docker.removed"])
def test_a_reaper_that_is_killed_at_any_step_is_followed_by_another(
    engine: TestEngine, state: Path, died: str, point: str
) -> None:
    with launch(engine, plan=f"{died}=kill;{point}=kill") as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    if entries(state):
        assert reap(state, f"{point}=kill") in {-signal.SIGKILL, 0, 1}
    assert_nothing_is_left(engine, state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_run_and_leave_nothing(
    engine: TestEngine, state: Path, number: signal.Signals
) -> None:
    with launch(engine) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert ours(engine, state) == []
    assert_nothing_is_left(engine, state)


@pytest.fixture(scope="module")
def mortal() -> Iterator[TestEngine]:
    """An engine that tests may stop and kill."""
    with engines.private() as engine:
        yield engine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.2, 1.0])
def test_an_engine_that_ends_at_any_moment_fails_the_run_and_keeps_nothing(
    mortal: TestEngine, state: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    log = tmp_path / "log"
    with launch(mortal, log) as process:
        assert eventually(lambda: asked(log), 30)
        time.sleep(delay)
        mortal.signal(number)
        mortal.start()
        out, err = process.communicate(timeout=100)
    assert process.returncode == 125, (out, err)
    assert b"docker" in err
    assert_nothing_is_left(mortal, state)
    assert mortal.volumes() == []


def test_claw_and_its_engine_die_together(mortal: TestEngine, state: Path) -> None:
    with launch(mortal) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        mortal.signal(signal.SIGKILL)
        process.kill()
        process.communicate()
    assert entries(state) != []
    mortal.start()
    assert_nothing_is_left(mortal, state)


def test_an_engine_that_is_frozen_while_claw_dies_creates_nothing_that_stays(
    mortal: TestEngine, state: Path, tmp_path: Path
) -> None:
    """Its requests are in its socket, unread: they are carried out after their client's death."""
    log = tmp_path / "log"
    with launch(mortal, log, "docker.pre-create=sleep(500)") as process:
        assert eventually(lambda: asked(log), 30)
        mortal.signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.kill()
        process.communicate()
    mortal.signal(signal.SIGCONT)
    assert_nothing_is_left(mortal, state)
