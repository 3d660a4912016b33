"""The apple runtime keeps the contract, in a simulated Mac."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from claw_core.testing import RuntimeContract
from simulators.container.world import IMAGE, World


class TestApple(RuntimeContract):
    """Containers of the version that most people have."""

    runtime = "apple"
    preload = ("claw_runtime_apple.runtime",)
    disk = "/root"
    version: ClassVar[str] = "1.2.2"

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
        """A Mac that all checks share."""
        with World(tmp_path_factory.mktemp("mac"), version=cls.version) as world:
            yield world

    @pytest.fixture
    def settings(self, world: World) -> Mapping[str, Any]:
        """Where the command is."""
        return {"command": str(world.bin / "container")}

    @pytest.fixture(autouse=True)
    def path(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """For launchd, whose own command has no setting."""
        monkeypatch.setenv("PATH", world.environment["PATH"])

    @pytest.fixture
    def image(self) -> str:
        """A file tree of nothing but busybox."""
        return IMAGE


class TestAppleBefore1(TestApple):
    """The version with the old listing, whose signals arrive, and without a live export."""

    version = "0.12.3"


class TestAppleFirst(TestApple):
    """The first version whose signals do not arrive, and without a live export."""

    version = "1.0.0"


class TestAppleLater(TestApple):
    """The version with another answer about its service."""

    version = "1.4.1"
