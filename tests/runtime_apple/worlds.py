"""Simulated Macs; with `--live-apple`, this one with its real `container`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from runtime_apple.live import LiveMac, refuse
from simulators.container.world import World

LIVE = "CLAW_LIVE_APPLE"
"""What `--live-apple` sets in the environment, for the workers of a test run as well."""


@contextlib.contextmanager
def opened(directory: Path, **knobs: Any) -> Iterator[World]:
    """A Mac of a test's own, in a directory; skipped where there can be none.

    Args:
        directory: where it is made.
        knobs: as the README of the simulator has them.
    """
    if os.environ.get(LIVE):
        refuse(knobs)
        yield cast("World", LiveMac())
        return
    with World(directory, **knobs) as world:
        yield world
