"""Sessions on a test engine, and what a test wants to know about them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import claw_core
from claw_core import events
from claw_core.capture import Capture
from claw_core.model import Exit
from claw_core.session import Session
from runtime_docker.engines import IMAGE, TestEngine

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], seconds: float = 100) -> T:
    """Run to the end, with an upper bound, for a test that hangs says nothing."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())


def configured(table: Mapping[str, Any]) -> claw_core.Config:
    """A configuration that sets nothing but the runtime's own table."""
    return claw_core.Config.of(claw_core.Settings(runtimes={"docker": table}))


@contextlib.asynccontextmanager
async def session(
    engine: TestEngine,
    *,
    settings: Mapping[str, Any] | None = None,
    listener: events.Listener = events.ignore,
    **options: Any,
) -> AsyncIterator[Session]:
    """A session on the test engine; afterwards its container is gone, says the engine."""
    table = {"host": engine.host, "image": IMAGE, **(settings or {})}
    async with claw_core.Router.open(config=configured(table), listener=listener) as router:
        async with router.session(runtime="docker", **options) as opened:
            yield opened
        assert opened.name not in engine.names()


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


def processes(engine: TestEngine, name: str) -> list[str]:
    """Command lines in a container, without those that hold it alive, and without zombies."""
    _, found = engine.call("GET", f"/containers/{name}/top", {"ps_args": "-eo pid,args"})
    lines = [row[-1] for row in found["Processes"]]
    return [line for line in lines if not re.search(r"umask 077|\[", line)]


async def gather(*work: Coroutine[Any, Any, T]) -> Sequence[T]:
    return await asyncio.gather(*work)
