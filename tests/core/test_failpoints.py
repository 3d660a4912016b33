"""Crash points: free when unset, exact when set."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw_core import failpoints
from claw_core.failpoints import InjectedFault, arm, hit

POINT = failpoints.declare("test.point", "a test is running")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm("")


def child(plan: str, code: str, log: str = "") -> subprocess.Popen[bytes]:
    program = (
        "from claw_core import failpoints as f; f.declare('test.point', 'x')\n"
        "print('up', flush=True)\n" + code
    )
    source = str(Path(failpoints.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "CLAW_FAILPOINT": plan}
    if log:
        environment["CLAW_FAILPOINT_LOG"] = log
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE
    )


def test_a_declared_point_can_be_looked_up() -> None:
    assert failpoints.POINTS[POINT] == "a test is running"


def test_nothing_happens_when_nothing_is_armed() -> None:
    hit(POINT)
    hit("never.declared")  # costs nothing, so it is not even looked up


def test_raise_raises() -> None:
    arm(f"{POINT}=raise")
    with pytest.raises(InjectedFault, match=r"test\.point"):
        hit(POINT)


def test_enospc_looks_like_a_full_disk() -> None:
    arm(f"{POINT}=enospc")
    with pytest.raises(OSError, match=r"test\.point") as caught:
        hit(POINT)
    assert caught.value.errno == errno.ENOSPC


def test_off_passes() -> None:
    arm(f"{POINT}=off")
    hit(POINT)


def test_sleep_waits_for_its_milliseconds() -> None:
    arm(f"{POINT}=sleep(30)")
    started = time.monotonic()
    hit(POINT)
    assert time.monotonic() - started >= 0.03


def test_counts_and_arrows_go_from_one_kind_to_the_next() -> None:
    arm(f"{POINT}=2*off->1*raise->1*enospc->off")
    hit(POINT)
    hit(POINT)
    with pytest.raises(InjectedFault):
        hit(POINT)
    with pytest.raises(OSError, match="space"):
        hit(POINT)
    hit(POINT)
    hit(POINT)


def test_a_plan_that_is_used_up_lets_everything_pass() -> None:
    arm(f"{POINT}=1*raise")
    with pytest.raises(InjectedFault):
        hit(POINT)
    hit(POINT)


def test_several_points_are_independent() -> None:
    other = failpoints.declare("test.other", "something else")
    arm(f"{POINT}=raise; {other}=1*off->enospc")
    hit(other)
    with pytest.raises(InjectedFault):
        hit(POINT)
    with pytest.raises(OSError, match="space"):
        hit(other)


def test_a_point_that_is_not_declared_is_an_error_as_soon_as_any_is_armed() -> None:
    arm(f"{POINT}=off")
    with pytest.raises(ValueError, match="not declared"):
        hit("never.declared")


def test_an_unknown_kind_is_an_error() -> None:
    arm(f"{POINT}=explode")
    with pytest.raises(ValueError, match="unknown kind 'explode'"):
        hit(POINT)


def test_the_log_has_every_point_that_was_passed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arm("", str(log))
    hit(POINT)
    hit(POINT)
    assert log.read_text() == f"{POINT}\n{POINT}\n"


def test_kill_ends_the_process_from_the_environment_at_the_right_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "f.hit('test.point'); f.hit('test.point'); print('alive', flush=True)"
    process = child("test.point=1*off->kill", code, str(log))
    output, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    assert output == b"up\n"
    assert log.read_text() == "test.point\n" * 2


def test_hang_hangs_until_killed() -> None:
    process = child("test.point=hang", "f.hit('test.point')")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.kill()
    process.communicate()
