"""Whatever is killed, nothing is left: not of the local sandbox, and not of an engine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from claw_core import failpoints, warden  # noqa: F401 - it declares its failpoints
from claw_core.ledger import Ledger
from claw_core.local import listing
from claw_runtime_apple import runtime as apple_runtime  # noqa: F401 - it declares failpoints
from claw_runtime_docker import runtime as docker_runtime  # noqa: F401 - so does this
from claw_runtime_tart import runtime as tart_runtime  # noqa: F401 - and this
from core import test_kept_kills, test_reaper, test_slots
from kills import worlds
from kills.harness import Scene, many, ready, tell
from runtime_docker import engines
from runtime_docker.engines import TestEngine
from runtime_tart import worlds as tart_worlds
from simulators.container.world import World as Mac
from simulators.tart.world import Simulator

FROZEN = {"local.pre-kill", "local.post-kill"}
"""Only passed where what should end by itself does not."""
LOCAL = {name for name in failpoints.POINTS if name.startswith(("local.", "warden."))} - FROZEN
UNREACHABLE = {"apple.booted-out"}
"""Only passed where the service does not end a machine."""
KEPT = {"apple.stopped", "docker.stopped"}
"""Only passed where something is kept."""
APPLE = {name for name in failpoints.POINTS if name.startswith("apple.")} - KEPT
DOCKER = {name for name in failpoints.POINTS if name.startswith("docker.")} - KEPT
IMAGES = {"tart.sealed", "tart.pre-save", "tart.saved"}
"""Only passed where an image is made: see `tests/runtime_tart/test_image.py`."""
TART = {name for name in failpoints.POINTS if name.startswith("tart.")} - IMAGES
MODEL = {name for names in test_reaper.POINTS.values() for name in names}
KEEPER = {*test_kept_kills.POINTS}
RECORD = {"ledger.pre-record", "ledger.post-record"}
"""Neither of the two has a fact to record."""
LIMBO = {"teardown.pre-limbo", "teardown.post-limbo", "teardown.settled"}
OP_LOCK = {"ledger.post-op-open", "ledger.post-op-lock"}
KILLS = int(os.environ.get("CLAW_KILLS", "100"))
SEED = int(os.environ.get("CLAW_SEED", "20261125"))


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    with engines.shared() as shared:
        yield shared


@pytest.fixture
def local(state: Path, tmp_path: Path) -> Scene:
    return Scene(worlds.local(state), state, tmp_path)


@pytest.fixture(scope="module")
def host() -> Iterator[Simulator]:
    with tart_worlds.opened(macos_limit=99) as host:
        yield host


@pytest.fixture
def tart(host: Simulator, state: Path, tmp_path: Path) -> Scene:
    return Scene(worlds.tart(host), state, tmp_path)


@pytest.fixture
def docker(engine: TestEngine, state: Path, tmp_path: Path) -> Scene:
    return Scene(worlds.docker(engine), state, tmp_path)


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Mac]:
    with Mac(tmp_path / "mac") as mac:
        yield mac


@pytest.fixture
def apple(mac: Mac, state: Path, tmp_path: Path) -> Scene:
    return Scene(worlds.apple(mac), state, tmp_path)


def sampled(point: str) -> object:
    """A point, by default only if it is one of few."""
    chosen = {"apple.post-run", "apple.ready", "apple.post-delete"}
    return point if point in chosen else pytest.param(point, marks=pytest.mark.soak)


def test_at_every_point_of_the_code_somebody_is_killed() -> None:
    points = {name for name in failpoints.POINTS if not name.startswith("test.")}
    killed = LOCAL | FROZEN | APPLE | DOCKER | KEPT | TART | IMAGES | MODEL | KEEPER
    killed |= {*test_slots.POINTS}
    assert points == killed
    tell("failpoints", hit=len(killed), of=len(points))


@pytest.mark.parametrize("point", sorted(LOCAL))
def test_a_kill_at_any_point_of_the_local_sandbox(local: Scene, point: str) -> None:
    local.kill_at(point)
    local.assert_nothing_is_left()


@pytest.mark.parametrize("point", sorted(DOCKER))
def test_a_kill_at_any_point_of_docker(docker: Scene, point: str) -> None:
    docker.kill_at(point)
    docker.assert_nothing_is_left()


@pytest.mark.parametrize("point", [sampled(one) for one in sorted(APPLE - UNREACHABLE)])
def test_a_kill_at_any_point_of_apple(apple: Scene, point: str) -> None:
    apple.kill_at(point)
    apple.assert_nothing_is_left()


@pytest.mark.parametrize("point", sorted(UNREACHABLE))
def test_a_kill_of_whoever_ends_a_machine_without_the_service(
    apple: Scene, mac: Mac, point: str
) -> None:
    with apple.run() as owner:
        assert ready(owner)
        mac.configure(server="unregistered")
        apple.kill_wardens()
        owner.kill()
    apple.ended(apple.reap(f"{point}=kill"), apple.reap(f"{point}=kill"))
    assert point in apple.passed()
    mac.configure(server="running")
    apple.assert_nothing_is_left()


@pytest.mark.parametrize("point", sorted(KEPT))
def test_a_kill_of_who_keeps_a_container(request: pytest.FixtureRequest, point: str) -> None:
    scene: Scene = request.getfixturevalue(point.partition(".")[0])
    scene.world = attrs.evolve(scene.world, options=(*scene.world.options, "--keep", "always"))
    scene.kill_at(point)
    scene.assert_nothing_is_left()


@pytest.mark.parametrize("point", sorted(TART))
def test_a_kill_at_any_point_of_tart(tart: Scene, point: str) -> None:
    tart.kill_at(point)
    tart.assert_nothing_is_left()


@pytest.mark.parametrize("point", sorted(FROZEN))
def test_a_kill_of_whoever_kills_what_is_frozen(local: Scene, point: str) -> None:
    with local.run() as owner:
        assert ready(owner)
        install = Ledger.open(local.state).install
        for pid in [pid for pids in listing.processes(install).values() for pid in pids]:
            with contextlib.suppress(ProcessLookupError):  # a beat's `sleep` has just ended
                os.kill(pid, signal.SIGSTOP)
        owner.kill()
    local.ended(local.reap(f"{point}=kill"), local.reap(f"{point}=kill"))
    local.assert_nothing_is_left()


def test_random_kills_of_owner_warden_and_reaper_on_the_local_sandbox(local: Scene) -> None:
    many(local, 10, random.randrange(1 << 32))


def test_random_kills_of_owner_warden_and_reaper_on_docker(docker: Scene) -> None:
    many(docker, 10, random.randrange(1 << 32))


def test_random_kills_of_owner_warden_and_reaper_on_apple(apple: Scene) -> None:
    many(apple, 20, random.randrange(1 << 32))


def test_random_kills_of_owner_warden_and_reaper_on_tart(tart: Scene) -> None:
    many(tart, 20, random.randrange(1 << 32))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills_on_tart(tart: Scene) -> None:
    many(tart, KILLS // 2, SEED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills_on_the_local_sandbox(local: Scene) -> None:
    many(local, KILLS, SEED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills_on_docker(docker: Scene) -> None:
    many(docker, KILLS, SEED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills_on_apple(apple: Scene) -> None:
    many(apple, KILLS // 2, SEED)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", sorted(MODEL - RECORD - LIMBO))
def test_a_kill_at_any_point_of_core_on_the_local_sandbox(local: Scene, point: str) -> None:
    local.kill_at(point)
    local.assert_nothing_is_left()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", sorted(MODEL - RECORD - OP_LOCK))
def test_a_kill_at_any_point_of_core_on_docker(docker: Scene, point: str) -> None:
    docker.kill_at(point)
    docker.assert_nothing_is_left()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", sorted(MODEL - RECORD - OP_LOCK))
def test_a_kill_at_any_point_of_core_on_apple(apple: Scene, point: str) -> None:
    apple.kill_at(point)
    apple.assert_nothing_is_left()
