"""An engine with a network, as NanoClaw's containers have one, and an installation on it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.support import eventually
from nanoclaw_shim.world import STARTED, World
from runtime_docker import engines
from runtime_docker.engines import TestEngine


@pytest.fixture(scope="package")
def engine() -> Iterator[TestEngine]:
    """An engine of this directory's own."""
    with engines.private("bridge") as engine:
        yield engine


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that the users of containers may enter."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _clients() -> Iterator[None]:
    """No client outlives its test, also where that has failed."""
    yield
    while STARTED:
        with STARTED.pop() as client:
            client.kill()


@pytest.fixture
def world(engine: TestEngine, base: Path) -> Iterator[World]:
    """An installation with two groups, all on Docker; afterwards nothing of it is there."""
    world = World.make(base, engine, "main", "family_chat")
    yield world
    assert eventually(world.quiet, 30)
