"""The docker runtime keeps the contract, on an engine of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from claw_core.testing import RuntimeContract
from runtime_docker import engines
from runtime_docker.engines import IMAGE, TestEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    """The engine that every test of containers shares."""
    with engines.shared() as engine:
        yield engine


class TestDocker(RuntimeContract):
    """Containers of dockerd."""

    runtime = "docker"
    preload = ("claw_runtime_docker.runtime",)
    disk = "/root"

    @pytest.fixture
    def settings(self, engine: TestEngine, request: pytest.FixtureRequest) -> Mapping[str, Any]:
        """Where the engine is; what a snapshot is to keep must be written to first."""
        writable = {"user": "0", "read_only": False} if "snapshot" in request.node.name else {}
        return {"host": engine.host, **writable}

    @pytest.fixture
    def image(self) -> str:
        """A file tree of nothing but busybox."""
        return IMAGE
