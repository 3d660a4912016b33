"""What `claw run` keeps at its end, by the command line alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.support import claw, entries, eventually, install, start

SLOW = """
import asyncio
from pathlib import Path

from conformance.good import Good


class Slow(Good):
    async def snapshot(self, instance, target):
        (self.place / "taking").touch()
        while not (self.place / "go").exists():
            await asyncio.sleep(0.01)
        return await super().snapshot(instance, target)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def environment(tmp_path: Path, place: Path) -> Mapping[str, str]:
    """A runtime whose snapshots take as long as a test likes, and the configuration for it."""
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "claw-slow", "slow = claw_slow:Slow", SLOW, "claw.runtimes")
    (tmp_path / "claw.toml").write_text(
        f'runtime = "slow"\nmin_isolation = "none"\n[runtimes.slow]\nplace = "{place}"\n'
    )
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(tmp_path / "site"))))
    return {"PYTHONPATH": path, "CLAW_CONFIG": str(tmp_path / "claw.toml")}


@pytest.mark.parametrize("times", [1, 2])
def test_the_first_signal_waits_for_the_snapshot_and_the_second_does_not(
    environment: Mapping[str, str], place: Path, state: Path, times: int
) -> None:
    program = "echo in; sleep 60"
    with start(
        *("run", "--snapshot", "on-failure", "--", "sh", "-c", program),
        env={**os.environ, **environment},
        cwd="/",
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"in\n"
        owner.send_signal(signal.SIGTERM)
        assert eventually((place / "taking").exists, 20)
        if times == 2:
            owner.send_signal(signal.SIGINT)
        else:
            (place / "go").touch()
        _, said = owner.communicate(timeout=30)
    assert owner.returncode == 128 + signal.SIGTERM
    assert entries(state) == []
    kept = [path.name for path in place.iterdir() if path.name.startswith("image-")]
    assert len(kept) == (1 if times == 1 else 0), said
    assert (b"without a snapshot" in said) == (times == 2)
    assert (b"the disk is kept as" in said) == (times == 1)


def test_a_snapshot_that_fails_changes_only_the_code_of_a_success(
    environment: Mapping[str, str], place: Path, state: Path
) -> None:
    (place / "go").touch()
    for code, expected in ((0, 125), (3, 3)):
        done = claw(
            *("run", "--snapshot", "always", "--", "sh", "-c", f"rm -r $HOME; exit {code}"),
            env=environment,
            cwd=Path("/"),
        )
        assert done.returncode == expected, done.stderr
        assert b"the instance is torn down all the same" in done.stderr
        assert entries(state) == []


def test_a_runtime_that_keeps_nothing_refuses(state: Path) -> None:
    for option, why in (("--snapshot", b"keeps no snapshots"), ("--keep", b"cannot keep")):
        done = claw("run", "-r", "local", option, "on-failure", "--", "true")
        assert done.returncode == 125
        assert why in done.stderr
    assert entries(state) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reap", "nothing"), b"there is no instance 'nothing'"),
        (("reap", "--adopt", "nothing"), b"leave out INSTANCE"),
        (("snapshots", "open", "nothing"), b"there is no snapshot 'nothing'"),
        (("snapshots", "delete", "nothing"), b"there is no snapshot 'nothing'"),
        (("run", "--keep-for", "soon", "--", "true"), b"expected a duration"),
    ],
)
def test_what_is_not_there_is_said(arguments: tuple[str, ...], said: bytes) -> None:
    done = claw(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
