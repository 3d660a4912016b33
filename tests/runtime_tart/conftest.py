"""The simulated hosts that the tests of this directory use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime_tart import worlds
from simulators.tart.world import Simulator


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    """A host for everything that goes well."""
    with worlds.opened() as world:
        yield world
        assert world.processes() == {}


@pytest.fixture
def world() -> Iterator[Simulator]:
    """A host of a test's own, for what goes wrong."""
    with worlds.opened() as world:
        yield world
