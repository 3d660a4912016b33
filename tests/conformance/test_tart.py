"""The tart runtime keeps the contract, on a simulated host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from claw_core.testing import RuntimeContract
from runtime_tart import worlds
from simulators.tart.world import Simulator


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[Simulator]:
    """A host that runs as many macOS guests as a check likes."""
    with worlds.opened(macos_limit=99) as world:
        yield world


class TestTart(RuntimeContract):
    """macOS guests, reached by SSH."""

    runtime = "tart"
    preload = ("claw_runtime_tart.runtime", "claw_runtime_tart.connecting")

    @pytest.fixture
    def settings(self, world: Simulator) -> Mapping[str, Any]:
        """The host's leases, and mounts that are shared."""
        return {**worlds.settings(world), "share": "mount"}

    @pytest.fixture
    def remove_snapshot(self, world: Simulator) -> Callable[[str], None]:
        """Delete it as its user would."""
        return lambda name: world.tart("delete", name)  # type: ignore[return-value]  # its end is of no interest
