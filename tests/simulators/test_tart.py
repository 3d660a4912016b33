"""The simulated `tart` against what is known of the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulators.tart.world import Simulator, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"{missing()}")


@pytest.fixture
def world() -> Iterator[Simulator]:
    with Simulator() as world:
        world.base()
        yield world


def test_a_machine_from_clone_to_delete(world: Simulator) -> None:
    assert world.tart("clone", "base", "one").returncode == 0
    process = world.run("one")
    address = world.address("one")
    assert world.tart("ip", "one").stdout == f"{address}\n"
    assert world.running() == {"one": process.pid}
    assert world.tart("stop", "one").returncode == 0
    assert process.communicate() == ("Stopping VM...\n", "")
    assert process.returncode == 0
    assert world.tart("delete", "one").returncode == 0
    assert world.vms() == {"base"}
    assert world.processes() == {}
