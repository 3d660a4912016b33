"""What the pages say of agents and of NanoClaw is what the code does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

from agents.support import BIN, PATH
from claw_core.agents import AGENTS, SESSION, Agent
from claw_nanoclaw.running import Run
from cli.support import hiding
from docs.test_examples import ROOT, commands

AGENTS_PAGE = (ROOT / "docs/reference/agents.md").read_text()
TUTORIAL = (ROOT / "docs/tutorial/nanoclaw.md").read_text()
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def cells(page: str, first: str) -> list[str]:
    """The cells of the row of a table whose first cell this is, without their code marks."""
    (row,) = re.findall(rf"^\| `{first}` \|(.*)\|$", page, re.MULTILINE)
    return [cell.strip().replace("`", "") for cell in row.split("|")]


def test_every_agent_is_described_as_it_is() -> None:
    for name, agent in AGENTS.items():
        command, session, state, secrets = cells(AGENTS_PAGE, name)
        words = command.split()
        without = [word for word in agent.start if word not in {SESSION, "--session-id", "-S"}]
        assert words == without
        assert session == ("chosen by claw" if SESSION in agent.start else "told by the agent")
        assert state == ", ".join(agent.state)
        assert secrets == ", ".join(agent.secrets)
        assert all(f"`{variable}" in AGENTS_PAGE for variable in agent.env)


def test_every_attribute_of_an_agent_is_described() -> None:
    section = AGENTS_PAGE.split("## The value")[1]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert described == [field.name for field in attrs.fields(Agent)]


def test_every_option_of_a_groups_run_is_described() -> None:
    page = (ROOT / "docs/how-to/embed-nanoclaw.md").read_text()
    own = {field.name for field in attrs.fields(Run)} - {"installation", "folder", "given", "asked"}
    section = page.split("| option of `run_group` |")[1].split("\n\n")[0]
    described = {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert described == own


def test_the_tutorial_is_what_happens(tmp_path: Path) -> None:
    """Line by line, with a stand-in for `claude`; ids of sessions are others each time."""
    home, root = tmp_path / "home", tmp_path / "nanoclaw"
    for group in ("chat", "finance"):
        (root / "groups" / group).mkdir(parents=True)
    (root / ".env").write_text("ANTHROPIC_API_KEY=canary-5309\n")
    agents = tmp_path / "agents"
    shutil.copytree(BIN, agents)
    shim = tmp_path / "bin/claw"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m claw_core "$@"\n')
    shim.chmod(0o755)
    hidden = ("claw-runtime-tart", "claw-runtime-apple", "claw-runtime-docker")
    environment = {
        **os.environ,
        **hiding(tmp_path, *hidden),
        "HOME": str(home),
        "PATH": f"{shim.parent}:/usr/bin:/bin",
    }
    del environment["XDG_CONFIG_HOME"]
    ids: dict[str, str] = {}
    for command, expected in commands(
        "".join(re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL))
    ):
        told = ID.sub(lambda match: ids.get(match[0], match[0]), command)
        done = subprocess.run(
            ["sh", "-c", f"{{ {told} }} 2>&1"],
            cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        shown = done.stdout.replace(str(home), "/home/you")
        ids.update(zip(ID.findall(expected), ID.findall(shown), strict=True))
        assert ID.sub("ID", shown) == ID.sub("ID", expected), command
        written = home / ".config/claw/claw.toml"
        if written.exists() and str(agents) not in written.read_text():
            where = f'mounts = ["{agents}:/agents"]\nenv = {{ PATH = "{PATH}" }}\n'
            written.write_text(where + written.read_text())
