"""A group whose agent is a stand-in for `claude`, and conversations with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from claw_core import Config, Router, events
from claw_core.agents import AGENTS
from claw_core.conversation import Answer, Conversation

T = TypeVar("T")
BIN = Path(__file__).with_name("bin")
PATH = "/agents:/usr/bin:/bin"
CLAUDE = AGENTS["claude"]


def configure(root: Path, *lines: str) -> Path:
    """Make a root with the group `finance`, and a `claw.toml` under which the stand-in is found."""
    (root / "groups/finance").mkdir(parents=True, exist_ok=True)
    file = root / "claw.toml"
    said = (f'mounts = ["{BIN}:/agents"]', f'env = {{ PATH = "{PATH}" }}')
    file.write_text("\n".join(("runtime = 'local'", *said, *lines)) + "\n")
    return file


@contextlib.asynccontextmanager
async def conversation(
    root: Path,
    *,
    environ: Mapping[str, str] = {},
    listener: events.Listener = events.ignore,
    group: str | None = "finance",
    **options: Any,
) -> AsyncIterator[Conversation]:
    """Talk to the stand-in for a group of a configured root."""
    environ = {"CLAW_CONFIG": str(root / "claw.toml"), "HOME": os.environ["HOME"], **environ}
    config = Config.load(root=root, environ=environ)
    async with (
        Router.open(config=config, listener=listener) as router,
        Conversation.open(router, CLAUDE, group=group, **options) as opened,
    ):
        yield opened


async def ask(root: Path, prompt: str, **options: Any) -> Answer:
    """Ask the stand-in one thing, in an instance of its own."""
    async with conversation(root, **options) as opened:
        return await opened.ask(prompt)


def run(work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
    """Run to the end, with an upper bound."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())
