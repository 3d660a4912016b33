"""Hosts with a simulated Tart; with `--live-tart`, this one with its real Tart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from runtime_tart.live import LiveHost, refuse
from simulators.tart.world import Simulator, missing

BASE = "tart_nanoclaw_base"
LIVE = "CLAW_LIVE_TART"
"""What `--live-tart` sets in the environment, for the workers of a test run as well."""


@contextlib.contextmanager
def opened(**knobs: Any) -> Iterator[Simulator]:
    """A host of a test's own, seen by its processes; skipped where there can be none."""
    if os.environ.get(LIVE):
        refuse({name: value for name, value in knobs.items() if name != "macos_limit"})
        yield cast("Simulator", LiveHost(BASE))
        return
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
