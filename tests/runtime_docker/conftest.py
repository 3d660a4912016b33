"""The engine that the tests of this directory share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_docker import engines
from runtime_docker.engines import TestEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """One engine for all workers of this test run."""
    if why := engines.missing():
        pytest.skip(why)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    with engines.used(Path(f"/var/tmp/claw-engine-{run[:12]}")) as shared:
        yield shared
