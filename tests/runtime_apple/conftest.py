"""The simulated Macs that the tests of this directory share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.container.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A Mac whose `container` is the one on the PATH."""
    with World(tmp_path / "mac") as world:
        monkeypatch.setenv("PATH", world.environment["PATH"])
        yield world
