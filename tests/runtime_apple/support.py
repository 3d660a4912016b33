"""Sessions in a simulated Mac, and what a test wants to know about them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import claw_core
from claw_core import events
from claw_core.capture import Capture
from claw_core.model import Exit
from claw_core.session import Session
from simulators.container.world import IMAGE, World

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], seconds: float = 100) -> T:
    """Run to the end, with an upper bound, for a test that hangs says nothing."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())


def table(world: World, **settings: Any) -> dict[str, Any]:
    """The runtime's table of the configuration."""
    return {"command": str(world.bin / "container"), "image": IMAGE, **settings}


def configured(settings: Mapping[str, Any]) -> claw_core.Config:
    """A configuration that sets nothing but the runtime's own table."""
    return claw_core.Config.of(claw_core.Settings(runtimes={"apple": settings}))


@contextlib.asynccontextmanager
async def session(
    world: World,
    *,
    settings: Mapping[str, Any] | None = None,
    listener: events.Listener = events.ignore,
    **options: Any,
) -> AsyncIterator[Session]:
    """A session in the world; afterwards nothing of it is left there."""
    config = configured(table(world, **(settings or {})))
    async with claw_core.Router.open(config=config, listener=listener) as router:
        async with router.session(runtime="apple", **options) as opened:
            yield opened
        assert opened.name not in names(world)


def names(world: World) -> set[str]:
    """The truth: names of containers that exist in whatever state."""
    return set(world.containers())


async def output(session: Session, *argv: str, **options: Any) -> tuple[Exit, str, str]:
    """Run a command, and return its end and what it wrote."""
    out, err = Capture(), Capture()
    ended = await session.run(argv, stdout=out, stderr=err, **options)
    return ended, out.data.decode(errors="replace"), err.data.decode(errors="replace")


async def shell(session: Session, program: str, **options: Any) -> str:
    """Run a shell program that must succeed, and return what it wrote."""
    ended, out, err = await output(session, "sh", "-c", program, **options)
    assert ended.code == 0, (ended, out, err)
    return out


async def gather(*work: Coroutine[Any, Any, T]) -> Sequence[T]:
    return await asyncio.gather(*work)
