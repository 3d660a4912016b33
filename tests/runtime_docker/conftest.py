"""The engines that the tests of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime_docker import engines
from runtime_docker.engines import TestEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """One engine for all workers of this test run."""
    with engines.shared() as engine:
        yield engine


@pytest.fixture(scope="module")
def podman() -> Iterator[TestEngine]:
    """A private Podman."""
    with engines.private("podman") as engine:
        yield engine
