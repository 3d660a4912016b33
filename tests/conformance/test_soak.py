"""Many kills of real owners, by the kit's own check; `CLAW_KILLS` sets how many."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

import pytest

from claw_core.testing.contract.bench import Bench
from claw_core.testing.contract.case import Case
from runtime_docker import engines
from runtime_docker.engines import IMAGE

KILLS = int(os.environ.get("CLAW_KILLS", "1000"))


def kill(case: Case) -> None:
    case.directory.chmod(0o711)  # the sandbox's user has to pass
    with Bench.open(case, KILLS) as bench:
        found = bench.examine("an_owner_may_be_killed_at_any_time")
    assert found is None, f"{found}, CLAW_SEED={case.seed}"


def seed() -> int:
    return int(os.environ.get("CLAW_SEED") or secrets.randbits(32))


@pytest.mark.soak
@pytest.mark.timeout(6 * KILLS + 60)
@pytest.mark.parametrize("engine", ["namespaces", "guard"])
def test_many_kills_of_the_local_runtime(engine: str) -> None:
    with tempfile.TemporaryDirectory(prefix="claw-soak-", dir="/var/tmp") as place:
        kill(Case("local", Path(place), {"engine": engine}, place=None, seed=seed()))


@pytest.mark.soak
@pytest.mark.timeout(6 * KILLS + 60)
def test_many_kills_of_the_docker_runtime(tmp_path: Path) -> None:
    with engines.shared() as engine:
        kill(Case("docker", tmp_path, {"host": engine.host}, IMAGE, seed=seed()))
