"""Sessions on a simulated host, and what a test wants to know about them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import claw_core
from claw_core import events
from claw_core.session import Session
from runtime_docker.support import gather, output, run, shell
from runtime_tart import worlds
from simulators.tart.world import Simulator

__all__ = ["gather", "output", "run", "session", "shell"]


def configured(table: Mapping[str, Any]) -> claw_core.Config:
    """A configuration that sets nothing but the runtime's own table."""
    return claw_core.Config.of(claw_core.Settings(runtimes={"tart": table}))


@contextlib.asynccontextmanager
async def session(
    world: Simulator,
    *,
    settings: Mapping[str, Any] | None = None,
    listener: events.Listener = events.ignore,
    state: Path | None = None,
    **options: Any,
) -> AsyncIterator[Session]:
    """A session on the host; afterwards nothing of it is there."""
    table = {**worlds.settings(world), **(settings or {})}
    config = configured(table)
    async with claw_core.Router.open(config=config, listener=listener, state=state) as router:
        async with router.session(runtime="tart", **options) as opened:
            yield opened
        assert opened.name not in world.vms()
        assert opened.name not in world.running()
