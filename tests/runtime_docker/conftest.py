"""The engine that the tests of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime_docker import engines
from runtime_docker.engines import TestEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """One engine for all workers of this test run."""
    if why := engines.missing():
        pytest.skip(why)
    with engines.shared() as engine:
        yield engine
