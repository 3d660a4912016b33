"""The apple runtime keeps the contract, in a simulated Mac."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from claw_core.testing import RuntimeContract
from claw_core.testing.contract.bench import Bench
from claw_core.testing.contract.case import Case
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


@pytest.mark.soak
class TestAppleBefore1(TestApple):
    """The version with the old listing, to whose calls signals are passed on."""

    version = "0.12.3"


@pytest.mark.soak
class TestAppleFirst(TestApple):
    """The first version whose signals do not arrive."""

    version = "1.0.0"


@pytest.mark.soak
class TestAppleLater(TestApple):
    """The version with another answer about its service."""

    version = "1.4.1"


@pytest.mark.parametrize(
    ("version", "check"),
    [("0.12.3", "a_cancelled_command_is_gone"), ("1.0.0", "a_signal_reaches_the_command")],
)
def test_what_versions_differ_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, check: str
) -> None:
    with World(tmp_path / "mac", version=version) as world:
        monkeypatch.setenv("PATH", world.environment["PATH"])
        (tmp_path / "case").mkdir()
        with Bench.open(Case("apple", tmp_path / "case", {}, IMAGE)) as bench:
            assert bench.examine(check) is None
