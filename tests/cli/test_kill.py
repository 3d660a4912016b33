"""Whatever ends `claw run`, nothing of its instance survives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from cli.support import CLAW, DAEMONS, claw, entries, eventually, marked, start, wardens

SECONDS_TO_DIE = 1.0


def launch(marker: str) -> subprocess.Popen[bytes]:
    return start("run", "-r", "local", "--", "python3", "-c", f"# {marker}\n{DAEMONS}")


def wait_for_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == b"ready\n", process.stderr and process.stderr.read()


def gone(marker: str) -> bool:
    return not marked(marker)


def assert_nothing_is_left(marker: str, state: Path) -> None:
    assert eventually(lambda: gone(marker), SECONDS_TO_DIE), marked(marker)
    assert claw("ps").returncode == 0
    assert eventually(lambda: entries(state) == [], 20), entries(state)
    assert b"claw-" not in claw("ps").stdout


def kill_at_random(count: int, seed: int, state: Path) -> None:
    """Half of the kills fall into the first 50 ms of the instance, the others later."""
    moments = random.Random(seed)
    for number in range(count):
        marker = f"kill-{uuid.uuid4().hex}"
        with launch(marker) as process:
            if number % 2:
                # The instance begins with its ledger entry.
                assert eventually(lambda: entries(state) != [] or process.poll() is not None)
                time.sleep(moments.uniform(0, 0.05))
            else:
                time.sleep(moments.uniform(0, 1.0))
            process.kill()
            process.communicate()
        assert_nothing_is_left(marker, state)


def test_sigkill_at_random_moments_leaves_nothing(state: Path) -> None:
    kill_at_random(16, random.randrange(1 << 32), state)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_sigkill_at_two_hundred_random_moments_leaves_nothing(state: Path) -> None:
    kill_at_random(200, 20261125, state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_signals_end_the_run_and_leave_nothing(number: int, times: int, state: Path) -> None:
    marker = f"signal-{uuid.uuid4().hex}"
    with launch(marker) as process:
        wait_for_ready(process)
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.01)
        process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert_nothing_is_left(marker, state)


def test_a_burst_of_signals_at_any_moment_leaves_nothing(state: Path) -> None:
    moments = random.Random()
    for _ in range(6):
        marker = f"burst-{uuid.uuid4().hex}"
        with launch(marker) as process:
            time.sleep(moments.uniform(0.05, 0.6))
            for _ in range(moments.randint(1, 4)):
                process.send_signal(moments.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
            process.communicate(timeout=20)
        assert_nothing_is_left(marker, state)


def test_the_warden_killed_first_changes_nothing(state: Path) -> None:
    marker = f"warden-{uuid.uuid4().hex}"
    with launch(marker) as process:
        wait_for_ready(process)
        assert eventually(lambda: wardens(state) != [])
        for pid in wardens(state):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    assert_nothing_is_left(marker, state)


def test_no_warden_survives_a_clean_run(state: Path) -> None:
    assert claw("run", "--", "true").returncode == 0
    assert eventually(lambda: wardens(state) == [])


EMBEDDED = """
import asyncio, multiprocessing, sys, time
import claw_core

async def main():
    async with claw_core.Router.open() as router:
        async with router.session(runtime="local") as session:
            context = multiprocessing.get_context("fork")
            child = context.Process(target=time.sleep, args=(600,))
            child.start()
            print(child.pid, flush=True)
            async def forward(data):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            await session.run(["python3", "-c", sys.argv[1]], stdout=forward)

asyncio.run(main())
"""


def test_a_forked_child_that_outlives_the_program_keeps_nothing_alive(state: Path) -> None:
    marker = f"fork-{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", EMBEDDED, f"# {marker}\n{DAEMONS}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
        # The forked child's own command line has the marker as well: it is not the instance's.
        assert eventually(lambda: set(marked(marker)) <= {child}, SECONDS_TO_DIE)
        assert Path(f"/proc/{child}").exists()
        assert claw("ps").returncode == 0
        assert eventually(lambda: entries(state) == [], 20), entries(state)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_two_runs_at_once_do_not_disturb_each_other(state: Path) -> None:
    first, second = f"one-{uuid.uuid4().hex}", f"two-{uuid.uuid4().hex}"
    with launch(first) as one, launch(second) as two:
        wait_for_ready(one)
        wait_for_ready(two)
        one.kill()
        one.communicate()
        assert eventually(lambda: gone(first), SECONDS_TO_DIE)
        assert claw("reap").returncode == 0
        assert two.poll() is None
        assert not gone(second)
        two.terminate()
        two.communicate(timeout=20)
    assert_nothing_is_left(second, state)


def test_a_killed_run_is_seen_by_dry_run_and_reaped(state: Path) -> None:
    marker = f"dry-{uuid.uuid4().hex}"
    with launch(marker) as process:
        wait_for_ready(process)
        for pid in wardens(state):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    shown = subprocess.run([*CLAW, "reap", "--dry-run"], capture_output=True, check=False)
    assert shown.returncode == 0
    if entries(state):
        assert b"claw-" in shown.stdout
    assert claw("reap").returncode == 0
    assert entries(state) == []
