"""Hosts with a simulated Tart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from simulators.tart.world import Simulator, missing

BASE = "tart_nanoclaw_base"


@contextlib.contextmanager
def opened(**knobs: Any) -> Iterator[Simulator]:
    """A host of a test's own, seen by its processes; skipped where there can be none."""
    if why := missing():
        pytest.skip(why)
    with Simulator(**knobs) as world:
        world.base(BASE, "darwin")
        own = {name: os.environ.get(name) for name in world.environment}
        os.environ.update(world.environment)
        try:
            yield world
        finally:
            for name, value in own.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def settings(world: Simulator) -> Mapping[str, Any]:
    """What a configuration says of it."""
    return {"leases": str(world.leases)}
