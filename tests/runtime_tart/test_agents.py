"""A stand-in for `claude` in a virtual machine: what it keeps travels in and out."""

from __future__ import annotations

import shutil
from pathlib import Path

from agents.support import BIN
from claw_core import Config, Router, Settings
from claw_core.agents import AGENTS
from claw_core.conversation import Answer, Conversation
from claw_core.model import Mount
from runtime_tart import worlds
from runtime_tart.support import run
from simulators.tart.world import Simulator


def test_an_agent_goes_on_in_another_machine(
    shared: Simulator, tmp_path: Path, state: Path
) -> None:
    shutil.copytree(BIN, tmp_path / "agents")
    mount = Mount(tmp_path / "agents", "/opt/agents", authorised=True)
    config = Config.of(Settings(runtimes={"tart": worlds.settings(shared)}))

    async def ask(session: str | None = None) -> Answer:
        async with (
            Router.open(config=config) as router,
            Conversation.open(
                router,
                AGENTS["claude"],
                group="finance",
                session=session,
                runtime="tart",
                mounts=(mount,),
                env={"PATH": "/opt/agents:/usr/bin:/bin"},
            ) as conversation,
        ):
            return await conversation.ask("count")

    first = run(ask())
    assert first.text == "prompt 1 of this session", first
    assert run(ask(first.session)).text == "prompt 2 of this session"
